"""Generated archives of slices of many kinds, damaged ones among them."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.files.dicoms import ct, phantom
from tests.support.sources.lesion_sources import draw_chest


def slice_bytes(number: int, side: int = 128) -> bytes:
    """A file with one slice, as PNG, JPEG or DICOM in turn, different for every number."""
    if number % 3 == 0:
        return ct(np.roll(phantom(side), number % 7, axis=1) + np.uint16(number % 50))
    file = io.BytesIO()
    grey = draw_chest(number, lesion=number % 2 == 0, size=side)[0]
    Image.fromarray(grey).save(file, "PNG" if number % 3 == 1 else "JPEG")
    return file.getvalue()


def write_slices(folder: Path, count: int, side: int = 128) -> Path:
    """Write files with one slice each, 100 in a folder."""
    for number in range(count):
        path = folder / f"{number // 100:03d}" / f"{number:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(slice_bytes(number, side))
    return folder


def write_mixed(folder: Path, count: int, side: int = 64) -> Path:
    """Write `count` files with a slice, and zips, series, damaged files and other files between them."""
    write_slices(folder, count, side)
    (folder / "001.dcm").write_bytes(ct(np.stack([phantom(side)] * 3)))
    (folder / "notes.txt").write_text("no image")
    for number in range(0, count, 10):
        data = slice_bytes(number, side)
        (folder / f"damaged-{number}").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for number in range(count // 10):
            archive.writestr(f"in/{number}.png", slice_bytes(3 * number + 1, side))
        archive.writestr("in/bad.png", slice_bytes(1, side)[:60])
        archive.writestr("../out.png", slice_bytes(1, side))
    (folder / "damaged.zip").write_bytes((folder / "z.zip").read_bytes()[:400])
    (folder / "zip-without-suffix").write_bytes((folder / "z.zip").read_bytes())
    return folder
