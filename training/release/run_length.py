"""Change of the number of steps of a run: checkpoints stay, results of the trained networks are deleted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.model.card import MANIFEST_NAME
from training.run.atomic_write import write_text
from training.run.processes import first_only
from training.run.progress import say

_NAME: Final = "lengths.json"

_MADE_AFTER_TRAINING: Final = (
    "*appearance.pt",
    "*-predictions.npz",
    "files.json",
    "agreement-*.json",
    f"model/{MANIFEST_NAME}",
)
"""Files that depend on the trained networks; those of the lung finder and the view checker stay."""


@first_only
def take_lengths(folder: Path, steps: Mapping[str, int]) -> None:
    """Store the numbers of steps of a run; if they changed, delete everything made after the training."""
    path = folder / _NAME
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if before == steps:
        return
    if before is not None:
        say(f"{folder}: the run has {steps} now, not {before}")
        for stale in (file for pattern in _MADE_AFTER_TRAINING for file in folder.glob(pattern)):
            stale.unlink()
    write_text(path, json.dumps(steps))
