"""A small data set of generated slices, laid out as COVID-CT's repository lays out the real one."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.covid_ct import LABELS, SPLITS, SplitName

Lists = dict[tuple[SplitName, str], list[str]]


def draw(label: int, seed: int, size: int = 48) -> Image.Image:
    """A noisy dark disc; COVID's is brighter inside, so that the classes can be learnt."""
    noise = np.random.default_rng(seed).integers(0, 60, (size, size))
    y, x = np.mgrid[:size, :size]
    disc = (x - size / 2) ** 2 + (y - size / 2) ** 2 < (size / 3) ** 2
    return Image.fromarray((noise + disc * (60 + 100 * label)).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def small_lists(counts: Mapping[SplitName, int]) -> Lists:
    """File names for `counts[split]` images a split and class."""
    return {
        (split, label): [f"{label.lower()}-{split}%{i}.png" for i in range(counts[split])]
        for split in SPLITS
        for label in LABELS
    }


def small_files(lists: Lists) -> dict[str, dict[str, bytes]]:
    """Class -> file name -> file, every image different."""
    files: dict[str, dict[str, bytes]] = {label: {} for label in LABELS}
    for seed, ((_, label), names) in enumerate(lists.items()):
        for i, name in enumerate(names):
            files[label][name] = png(draw(LABELS.index(label), 1000 * seed + i))
    return files


def write_data_set(root: Path, lists: Lists, files: Mapping[str, Mapping[str, bytes]], *, zipped: bool = True) -> Path:
    """Write images and split lists below `root`; returns it."""
    images = root / "Images-processed"
    images.mkdir(parents=True)
    for label, contents in files.items():
        if zipped:
            with zipfile.ZipFile(images / f"CT_{label}.zip", "w") as archive:
                for name, data in contents.items():
                    archive.writestr(f"CT_{label}/{name}", data)
        else:
            (images / f"CT_{label}").mkdir()
            for name, data in contents.items():
                (images / f"CT_{label}" / name).write_bytes(data)
    for (split, label), names in lists.items():
        path = root / "Data-split" / label / f"{split}CT_{label}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return root
