"""A models folder with the same network files, calibrated to a hospital's own slices."""

import json
import shutil
from pathlib import Path
from typing import Final

from service.model.card import MANIFEST_NAME, Interval, LocalCalibration
from training.errors import TrainingError
from training.evaluation.scores import written
from training.models.publish import CARD_NAME, publish, staging_folder
from training.run.atomic_write import write_text

_TITLE: Final = "## Calibrated to"


def write_calibrated(models: Path, out: Path, local: LocalCalibration, before: dict[str, Interval]) -> None:
    """Write the folder; a process killed at any moment leaves it without a model or with a whole one.

    Args:
        models: folder of the released model.
        out: another folder, which is created.
        local: for the manifest, from which the service reads it.
        before: figures of the released model on the same slices.

    Raises:
        TrainingError: `out` is the released model's folder.
    """
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
    write_text(staging / CARD_NAME, f"{text}\n{_section(local, before)}")
    publish(out)


def _section(local: LocalCalibration, before: dict[str, Interval]) -> str:
    """Write the card's section: data of the calibration, thresholds, and figures before and after."""
    points = "\n".join(
        f"| {name} | {threshold:.2f} | {local.lesion_thresholds.get(name, 0.0):.2f} |"
        for name, threshold in local.operating_points.items()
    )
    figures = "\n".join(
        f"| {name} | {written(before[name]) if name in before else '-'} | {written(figure)} |"
        for name, figure in local.figures.items()
    )
    return f"""{_TITLE} {local.source}

On {local.date}, from {local.count} slices ({local.positives} COVID) of {local.groups} patients of {local.source}. The
weights are those of the released model. The figures above do not apply to these thresholds. The figures here were
measured on patients left out of the fit; 95 % intervals are over patients.

| operating point | threshold of the probability | of the lesion probability |
| --- | --- | --- |
{points}

| figure | released model | calibrated |
| --- | --- | --- |
{figures}
"""
