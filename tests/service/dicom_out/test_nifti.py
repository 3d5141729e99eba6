import dataclasses
import gzip

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from service.dicom_out.masks import Segment
from service.dicom_out.nifti import FILES, nifti_masks
from tests.support.files.ball_series import maps, series
from tests.support.files.chest import BALL, BALL_ML


def read(data: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


@pytest.mark.parametrize("step", [5.0, -5.0])
def test_the_ball_has_its_volume_and_its_place(step: float) -> None:
    image = read(nifti_masks(maps(series(step=(0, 0, step))))["lesion.nii.gz"])
    voxels = np.argwhere(np.asarray(image.dataobj))
    places = apply_affine(image.affine, voxels) * (-1, -1, 1)  # NIfTI leads to the right and the front
    assert len(voxels) * np.prod(image.header.get_zooms()) / 1000 == pytest.approx(BALL_ML, rel=0.03)
    assert np.linalg.norm(places.mean(axis=0) - BALL) < 2


def test_masks_are_those_of_the_segmentation() -> None:
    chest = maps(series(count=5))
    files = {name: np.asarray(read(data).dataobj) for name, data in nifti_masks(chest).items()}
    assert files.keys() == FILES.keys()
    lungs, masks = files["lungs.nii.gz"][:, :, 2].T, chest.masks(2)
    assert np.array_equal(lungs == 1, masks[Segment.LEFT_LUNG - 1])
    assert np.array_equal(lungs == 2, masks[Segment.RIGHT_LUNG - 1])
    assert np.array_equal(files["lesion.nii.gz"][:, :, 2].T == 1, masks[Segment.LESION - 1])


def test_a_slice_without_lungs_is_empty() -> None:
    chest = maps(series(count=3))
    alone = dataclasses.replace(chest, slices=[None, chest.slices[1], None])
    lungs = np.asarray(read(nifti_masks(alone)["lungs.nii.gz"]).dataobj)
    assert [bool(lungs[:, :, index].any()) for index in range(3)] == [False, True, False]
