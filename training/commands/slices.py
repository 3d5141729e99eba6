"""The command `slices`: folders of slices for `train` from volumes of CT, with their masks."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from training.data.labelled import LESION_ENDING, LUNG_ENDING, TABLE_NAME
from training.data.masks import Mask
from training.data.volumes import Volume, read_mask_volume, read_volumes
from training.errors import TrainingError
from training.run.atomic_write import write_csv
from training.run.run_folder import check_folder


def run(options: argparse.Namespace) -> None:
    """Write every N-th slice of all volumes of a folder, its masks, and slices.csv.

    Raises:
        TrainingError: the folder to write into has files, or no slice could be written.
    """
    _check_new(options.out)
    rows: list[tuple[str, str, str]] = []
    volumes = set()
    for volume in read_volumes(options.folder):
        masks = {
            ending: _masks_of(volume, folder)
            for ending, folder in ((LESION_ENDING, options.lesions), (LUNG_ENDING, options.lungs))
            if folder is not None
        }
        options.out.mkdir(parents=True, exist_ok=True)
        volumes.add(volume.name)
        places = _with_lungs(volume, masks.get(LUNG_ENDING))[:: options.every]
        rows += [(name, options.source, volume.name) for name in _write(volume, places, masks, options.out)]
    if not volumes:
        raise TrainingError(f"{options.folder}: no slices; it needs DICOM, NIfTI, or LUNA16's .mhd with .raw")
    if not rows:
        raise TrainingError(f"--lungs {options.lungs}: the masks are empty, so no slice shows lungs")
    if options.lesions is not None:
        write_csv(options.out / TABLE_NAME, ("file", "source", "volume"), rows)
    print(f"{len(rows)} slices of {len(volumes)} volumes written to {options.out}")


def _check_new(folder: Path) -> None:
    """Check that nothing can be overwritten: slices of two patients often have the same names."""
    check_folder("--out", folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise TrainingError(f"--out {folder}: the folder has files; pass a new one")


def _write(volume: Volume, places: Sequence[int], masks: Mapping[str, list[Mask]], folder: Path) -> Iterator[str]:
    """Write some slices of a volume with their masks, and yield their names."""
    for place in places:
        path = folder / f"{volume.name.replace('/', '-')}-{place:03}.png"
        if path.exists():
            raise TrainingError(f"{volume.name}: two volumes have this name; rename one")
        Image.fromarray(volume.slices[place]).save(path)
        for ending, mask in masks.items():
            Image.fromarray(mask[place]).save(path.with_suffix(ending))
        yield path.name


def _masks_of(volume: Volume, folder: Path) -> list[Mask]:
    paths = [folder / f"{volume.name}{ending}" for ending in (".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise TrainingError(f"{folder}: no {volume.name}.nii.gz or .nii, the masks of volume {volume.name}")
    masks = read_mask_volume(path)
    sizes = [[len(stack), *stack[0].shape] for stack in (masks, volume.slices)]
    if sizes[0] != sizes[1]:
        raise TrainingError(f"{path}: the masks are {sizes[0]} voxels, the volume {sizes[1]}")
    return masks


def _with_lungs(volume: Volume, lungs: list[Mask] | None) -> list[int]:
    """Choose the slices that show lungs by their mask; without a mask, the middle half of the volume."""
    count = len(volume.slices)
    if lungs is None:
        return list(range(count // 4, count - count // 4))
    return [place for place in range(count) if lungs[place].any()]
