"""A models folder with the same network files, calibrated to a hospital's own slices."""

import json
import shutil
from pathlib import Path
from typing import Final

from service.model.card import MANIFEST_NAME, Interval, LocalCalibration
from training.errors import TrainingError
from training.evaluation.scores import written
from training.models.publish import CARD_NAME, publish, staging_folder
from training.models.template import fill_template
from training.run.atomic_write import write_text

_TITLE: Final = "## Calibrated to"
_SECTION: Final = Path(__file__).with_name("calibrated_card.md")
"""Template of the card's section: data of the calibration, thresholds, and figures before and after."""


def write_calibrated(models: Path, out: Path, local: LocalCalibration, before: dict[str, Interval]) -> None:
    """Write the folder `out`; a process killed at any moment leaves it without a model or with a whole one."""
    if out.resolve() == models.resolve():
        raise TrainingError(f"--out {out}: that is the folder of the released model; name another one")
    staging = staging_folder(out)
    manifest = json.loads((models / MANIFEST_NAME).read_bytes())
    for file in manifest["files"]:
        shutil.copyfile(models / file["name"], staging / file["name"])
    manifest["local"] = local.model_dump(mode="json")
    write_text(staging / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")
    card = models / CARD_NAME
    text = card.read_text(encoding="utf-8").partition(f"\n{_TITLE}")[0] if card.is_file() else ""
    filters = {"interval": written, "two": "{:.2f}".format}
    write_text(staging / CARD_NAME, text + fill_template(_SECTION, filters, title=_TITLE, local=local, before=before))
    publish(out)
