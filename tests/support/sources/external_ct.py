"""Folders of generated slices of another source than COVID-CT."""

from pathlib import Path

from tests.support.sources.covid_ct import draw, png
from training.data.covid_ct import LABELS


def write_external_ct(root: Path, each: int) -> Path:
    """Write the folders NonCOVID and COVID with `each` slices, one folder deeper, and a note; returns `root`."""
    for label, name in enumerate(LABELS):
        folder = root / name / "patient"
        folder.mkdir(parents=True)
        for number in range(each):
            (folder / f"{number}.png").write_bytes(png(draw(label, 50_000 + 1000 * label + number)))
        (root / name / "README.md").write_text("source of these slices")
    return root
