"""Drawn chest slices in the layout of every source that `train` reads, to try the job without a data set.

No image was used: each shape is a formula. A network that learns them knows nothing of disease.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.covid_ct import LABELS, SPLITS, SplitName
from training.data.labelled import LESION_ENDING, LUNG_ENDING, TABLE_NAME
from training.data.masks import Mask
from training.run.atomic_write import write_csv

Picture = NDArray[np.uint8]

_AIR, _TISSUE, _LUNG, _HEART, _BONE = 5, 205, 35, 190, 250
_LESION = 85
"""Grey values; a lesion adds its value to the lung."""


class Chest(NamedTuple):
    """One drawn slice, uint8 (S, S), with its lungs and lesions, bool (S, S)."""

    grey: Picture
    lung: Mask
    lesion: Mask


@dataclass(frozen=True, slots=True)
class SourceSizes:
    """Numbers of slices: by COVID-CT split and class, by class of the other hospital, and of the others."""

    covid_ct: Mapping[SplitName, int]
    hospital: int
    volumes: int
    slices_a_volume: int
    clear: int
    other: int


DEMO: Final = SourceSizes(
    covid_ct={"train": 16, "val": 4, "test": 8}, hospital=16, volumes=8, slices_a_volume=3, clear=12, other=8
)
"""Enough for every stage, and for intervals that exclude chance."""


def write_sources(folder: Path, sizes: SourceSizes = DEMO) -> Path:
    """Write `covid-ct`, `hospital`, `lesions`, `clear` and `other` into a folder; returns it."""
    write_covid_ct(folder / "covid-ct", sizes.covid_ct)
    write_labelled(folder / "hospital", sizes.hospital)
    write_lesions(folder / "lesions", sizes.volumes, sizes.slices_a_volume)
    write_clear(folder / "clear", sizes.clear)
    write_other(folder / "other", sizes.other)
    return folder


def draw_chest(seed: int, *, lesion: bool, size: int = 96, level: float = 0.0) -> Chest:
    """Draw a bright body with two dark lungs, a heart and a spine, and grey lesions in the lungs.

    Args:
        seed: of every shape; slices of one seed are of one patient.
        lesion: whether there are lesions.
        size: pixels of a side.
        level: place along the body, -1 to 1; the lungs are largest at 0.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    turn, (right, down) = generator.uniform(-0.25, 0.25), generator.uniform(-0.2, 0.2, 2)
    x, y = (
        (x - right) * np.cos(turn) + (y - down) * np.sin(turn),
        (y - down) * np.cos(turn) - (x - right) * np.sin(turn),
    )
    wide, deep = generator.uniform(0.65, 1.0), generator.uniform(0.5, 0.85)

    def ellipse(middle_x: float, middle_y: float, half_width: float, half_height: float) -> Mask:
        across, along = (x / wide - middle_x) / half_width, (y / deep - middle_y) / half_height
        return np.asarray(across**2 + along**2 < 1)

    body = ellipse(0, 0, 1, 1)
    shape = generator.uniform(0.8, 1.2, 4) * (1 - 0.3 * level**2)
    heart = ellipse(generator.uniform(-0.05, 0.2), generator.uniform(-0.25, 0.05), 0.3 * shape[0], 0.35 * shape[1])
    spine = ellipse(0, 0.65, 0.13, 0.18)
    lung, lesions = np.zeros_like(body), np.zeros_like(body)
    for side, height in zip((-1, 1), shape[2:], strict=True):
        lung |= ellipse(side * 0.48, 0, 0.36, 0.62 * height)
        spots = generator.uniform((0.35, -0.35, 0.1), (0.65, 0.35, 0.2), (2, 3))
        if lesion:
            for outwards, middle_y, radius in spots:
                lesions |= ellipse(side * outwards, middle_y, radius, radius)
    lung &= body & ~heart & ~spine
    lesions &= lung
    grey = np.select([lung, heart & body, spine & body, body], [_LUNG, _HEART, _BONE, _TISSUE], _AIR).astype(np.float64)
    coarse = np.asarray(cv2.resize(generator.normal(0, 30, (4, 4)), (size, size), interpolation=cv2.INTER_CUBIC))
    grey += (
        _LESION * lesions
        + coarse * body
        + np.random.default_rng((seed, lesion, round(99 * level) + 99)).normal(0, 7, grey.shape)
    )
    return Chest(grey.clip(0, 255).astype(np.uint8), lung, lesions)


def write_covid_ct(folder: Path, counts: Mapping[SplitName, int]) -> Path:
    """Write COVID-CT's layout with so many slices a split and class, each of another patient and paper.

    COVID slices have lesions.
    """
    rows: list[Sequence[str]] = []
    for label, name in enumerate(LABELS):
        images = folder / "Images-processed" / f"CT_{name}"
        images.mkdir(parents=True)
        (folder / "Data-split" / name).mkdir(parents=True)
        for place, split in enumerate(SPLITS):
            files = [f"{name.lower()}{split}{number}.png" for number in range(counts[split])]
            rows += [(file, name, split, f"Patient {file.removesuffix('.png')}") for file in files]
            (folder / "Data-split" / name / f"{split}CT_{name}.txt").write_text("\n".join(files) + "\n")
            for number, file in enumerate(files):
                seed = 100_000 + 20_000 * label + 1000 * place + number
                _save(draw_chest(seed, lesion=bool(label)).grey, images / file)
    write_csv(folder / "patients.csv", ("file", "class", "split", "patient"), rows)
    return folder


def write_labelled(folder: Path, count: int = 4) -> Path:
    """Write the folders `COVID` and `NonCOVID` with so many slices each; COVID slices have lesions."""
    for label, name in enumerate(LABELS):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            _save(draw_chest(200_000 + 1000 * label + number, lesion=bool(label)).grey, folder / name / f"{number}.png")
    return folder


def write_lesions(folder: Path, volumes: int = 4, slices: int = 2) -> Path:
    """Write slices with lesion and lung masks, and one clear slice a volume."""
    folder.mkdir(parents=True)
    rows: list[Sequence[str]] = []
    for volume in range(volumes):
        for number in range(slices + 1):
            level = 2 * number / (slices + 1) - 1
            chest = draw_chest(300_000 + volume, lesion=number < slices, level=level)
            path = folder / f"{volume}-{number}.png"
            _save(chest.grey, path)
            _save((chest.lung * 255).astype(np.uint8), path.with_suffix(LUNG_ENDING))
            _save((chest.lesion * 255).astype(np.uint8), path.with_suffix(LESION_ENDING))
            rows.append((path.name, "drawn", str(volume)))
    write_csv(folder / TABLE_NAME, ("file", "source", "volume"), rows)
    return folder


def write_clear(folder: Path, count: int = 4) -> Path:
    """Write slices without lesion."""
    folder.mkdir(parents=True)
    for number in range(count):
        _save(draw_chest(400_000 + number, lesion=False).grey, folder / f"{number}.png")
    return folder


def write_other(folder: Path, count: int = 4) -> Path:
    """Write pictures that are not slices: noise."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64)).astype(np.uint8)
        _save(noise, folder / f"{number}.png")
    return folder


def _save(picture: Picture, path: Path) -> None:
    Image.fromarray(picture).save(path)
