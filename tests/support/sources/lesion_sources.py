"""Generated slices of several small sources, laid out as the recipe `lesion` reads them."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.sources.covid_ct import Lists, png

Picture = NDArray[np.uint8]


def draw_chest(seed: int, *, lesion: bool, size: int = 96) -> tuple[Picture, NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw a bright body with two dark lungs, and grey lesions in them; returns slice, lung mask, lesion mask."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    shift = generator.uniform(-0.05, 0.05, 2)
    body = (x / 0.9) ** 2 + (y / 0.75) ** 2 < 1
    lung = np.zeros_like(body)
    lesions = np.zeros_like(body)
    for side in (-1, 1):
        middle = side * 0.42 + shift[0]
        lung |= ((x - middle) / 0.3) ** 2 + ((y - shift[1]) / 0.5) ** 2 < 1
        if lesion:
            lesions |= (x - middle - side * 0.1) ** 2 + (y - shift[1] - 0.2) ** 2 < 0.02
    lesions &= lung
    grey = np.where(body, 210, 5) - 170 * lung + 80 * lesions + generator.integers(0, 20, body.shape)
    return grey.clip(0, 255).astype(np.uint8), lung, lesions


def write_labelled(folder: Path, count: int = 4) -> Path:
    """Write the folders `COVID` and `NonCOVID` with `count` slices each."""
    for label in ("COVID", "NonCOVID"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            grey, _, _ = draw_chest(number, lesion=label == "COVID")
            Image.fromarray(grey).save(folder / label / f"{number}.png")
    return folder


def write_lesions(folder: Path, volumes: int = 4, slices: int = 2) -> Path:
    """Write slices with lesion and lung masks, and one clear slice a volume."""
    folder.mkdir(parents=True)
    rows = []
    for volume in range(volumes):
        for number in range(slices + 1):
            name = f"{volume}-{number}.png"
            grey, lung, lesion = draw_chest(10 * volume + number, lesion=number < slices)
            Image.fromarray(grey).save(folder / name)
            Image.fromarray((lung * 255).astype(np.uint8)).save(folder / f"{volume}-{number}.lung.png")
            Image.fromarray((lesion * 255).astype(np.uint8)).save(folder / f"{volume}-{number}.lesion.png")
            rows.append((name, "drawn", str(volume)))
    with (folder / "slices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "source", "volume"), *rows])
    return folder


def write_clear(folder: Path, count: int = 4) -> Path:
    """Write slices without lesion."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw_chest(100 + number, lesion=False)[0]).save(folder / f"{number}.png")
    return folder


def write_other(folder: Path, count: int = 4) -> Path:
    """Write pictures that are no slices."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def chest_files(lists: Lists) -> dict[str, dict[str, bytes]]:
    """Class -> file name -> PNG of a drawn chest, for COVID-CT's layout."""
    files: dict[str, dict[str, bytes]] = {"COVID": {}, "NonCOVID": {}}
    for seed, ((_, label), names) in enumerate(lists.items()):
        for number, name in enumerate(names):
            grey, _, _ = draw_chest(1000 + 100 * seed + number, lesion=label == "COVID")
            files[label][name] = png(Image.fromarray(grey))
    return files
