"""Folders of generated slices that are not of COVID-CT."""

from pathlib import Path

from tests.training.data_set import draw, png
from training.data import LABELS


def write_labelled_folders(root: Path, each: int) -> Path:
    """The folders NonCOVID and COVID with `each` slices, a folder deeper, and notes beside them; returns `root`."""
    for label, name in enumerate(LABELS):
        folder = root / name / "patient"
        folder.mkdir(parents=True)
        for number in range(each):
            (folder / f"{number}.png").write_bytes(png(draw(label, 50_000 + 1000 * label + number)))
    (root / "README.md").write_text("where these are from")
    return root
