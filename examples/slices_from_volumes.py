"""Make the folders for `--lesions` and `--clear` of the training job from public CT volumes.

    python -m examples.slices_from_volumes COVID-19-CT-Seg_20cases --out ../lesions --every 8 \
        --lesions Infection_Mask --lungs Lung_Mask --source ct-seg
    python -m examples.slices_from_volumes luna16/subset0 --out ../clear --every 40

Reads NIfTI (extra `nifti`) and MetaImage (LUNA16's .mhd with .raw). Masks are NIfTI files named like the volumes.
Slices are written upright, in the lung window, as PNG.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.window import LUNG

Volume = NDArray[np.float64]
"""(Z, rows, columns); rows from the front of the body to its back, columns from its right to its left."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write slices of all volumes of a folder and, where masks are given, their masks and slices.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", type=Path, help="folder of .nii, .nii.gz or .mhd files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--lesions", type=Path, help="folder of lesion masks; without it, slices are of clear lungs")
    parser.add_argument("--lungs", type=Path, help="folder of lung masks")
    parser.add_argument("--source", default="volumes", help="name of the source in slices.csv (volumes)")
    parser.add_argument("--every", type=int, default=8, metavar="N", help="take every N-th slice with lungs (8)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted(options.volumes.iterdir()):
        if not path.name.endswith((".nii", ".nii.gz", ".mhd")):
            continue
        volume = to_grey(read_volume(path))
        masks = {
            kind: read_volume(folder / path.name) > 0
            for kind, folder in (("lesion", options.lesions), ("lung", options.lungs))
            if folder is not None
        }
        for number in with_lungs(len(volume), masks.get("lung"))[:: options.every]:
            name = f"{path.name.partition('.nii')[0].removesuffix('.mhd')}-{number:03}"
            Image.fromarray(volume[number]).save(options.out / f"{name}.png")
            for kind, mask in masks.items():
                Image.fromarray(mask[number]).save(options.out / f"{name}.{kind}.png")
            rows.append(f"{name}.png,{options.source},{path.name}")
    if options.lesions is not None:
        (options.out / "slices.csv").write_text("\n".join(["file,source,volume", *rows]) + "\n", encoding="utf-8")
    print(f"{len(rows)} slices written to {options.out}")


def with_lungs(count: int, lungs: NDArray[np.bool_] | None) -> list[int]:
    """Return the slices that show lungs by their mask; without a mask, the middle half of the volume."""
    if lungs is None:
        return list(range(count // 4, count - count // 4))
    return [number for number in range(count) if lungs[number].any()]


def to_grey(volume: Volume) -> NDArray[np.uint8]:
    """Map Hounsfield units to the lung window; volumes that were published as grey values stay as they are."""
    is_grey = volume.min() >= 0 and volume.max() <= 255
    return volume.astype(np.uint8) if is_grey else LUNG.grey(volume)


def read_volume(path: Path) -> Volume:
    """Read a volume of either format."""
    return _read_metaimage(path) if path.suffix == ".mhd" else _read_nifti(path)


def _read_nifti(path: Path) -> Volume:
    import nibabel  # an extra; LUNA16 needs none

    image: Any = nibabel.as_closest_canonical(nibabel.load(path))  # axes to the right, to the front, upwards
    return np.asarray(image.get_fdata()[::-1, ::-1].transpose(2, 1, 0), np.float64)


def _read_metaimage(path: Path) -> Volume:
    lines = [line.partition("=") for line in path.read_text(encoding="ascii").splitlines()]
    header = {name.strip(): value.strip() for name, _, value in lines}
    if header["ElementType"] != "MET_SHORT":
        raise SystemExit(f"{path}: samples are {header['ElementType']}; LUNA16's are MET_SHORT")
    columns, rows, slices = (int(each) for each in header["DimSize"].split())
    volume = np.fromfile(path.with_name(header["ElementDataFile"]), "<i2").reshape(slices, rows, columns)
    # LUNA16's axes go to the left and to the back unless the matrix says otherwise, as in two of its scans
    x, y = (float(header.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()[place]) for place in (0, 4))
    return volume[:, :: 1 if y > 0 else -1, :: 1 if x > 0 else -1].astype(np.float64)


if __name__ == "__main__":
    main()
