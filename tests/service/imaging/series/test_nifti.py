import struct
import tracemalloc
from typing import Any

import nibabel
import numpy as np
import pytest

from service.errors import ServiceError
from service.imaging.series.nifti import open_nifti
from service.imaging.window import LUNG
from tests.support.files.studies import gzipped, volume

HEIGHTS = [100.0, 110.0, 120.0, 130.0]
DIM, VOX_OFFSET, QUATERNION, QFORM_CODE, SFORM_CODE, SROW = 40, 108, 256, 252, 254, 280


def changed(data: bytes, at: int, form: str, *values: float) -> bytes:
    """The file with other values at an offset of its header."""
    end = at + struct.calcsize(form)
    return data[:at] + struct.pack(form, *values) + data[end:]


def read(data: bytes) -> np.ndarray:
    """All slices of a file."""
    return np.concatenate(list(open_nifti(data).slices()))


@pytest.fixture(scope="module")
def data() -> bytes:
    """The drawn phantom with a qform and a sform."""
    image = volume(HEIGHTS)
    image.set_qform(image.affine, 1)
    return bytes(image.to_bytes())


def test_slices_are_upright_from_the_feet_to_the_head(data: bytes) -> None:
    slices = read(data)
    assert slices.shape == (4, 64, 64)
    ball = slices[3] != slices[0]  # the ball is in the upper slices, in the left lung
    assert ball[:, 32:].any()
    assert not ball[:, :32].any()
    geometry = open_nifti(data).geometry
    assert geometry.offsets.tolist() == pytest.approx(HEIGHTS)
    assert geometry.pixel_spacing == pytest.approx((5.0, 5.0))
    assert geometry.row_direction.tolist() == pytest.approx([1, 0, 0])
    assert geometry.positions[0].tolist() == pytest.approx([-157.5, -157.5, 100])


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PSR", "ILA"])
def test_every_order_of_axes_gives_the_same_slices_and_geometry(data: bytes, axes: str) -> None:
    image = nibabel.Nifti1Image.from_bytes(data)
    orientation = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = image.as_reoriented(orientation).to_bytes()
    assert (read(turned) == read(data)).all()
    assert open_nifti(turned).geometry.positions == pytest.approx(open_nifti(data).geometry.positions)


def test_a_vox_offset_of_0_means_right_behind_the_header(data: bytes) -> None:
    assert (read(changed(data, VOX_OFFSET, "<f", 0.0)) == read(data)).all()


def test_a_vox_offset_inside_the_header_is_refused(data: bytes) -> None:
    with pytest.raises(ServiceError, match="vox_offset is 100"):
        read(changed(data, VOX_OFFSET, "<f", 100.0))


def test_a_quaternion_slightly_longer_than_1_is_read(data: bytes) -> None:
    long = changed(data, QUATERNION, "<3f", 0.0, 0.0, 1.0 + 3e-7)
    long = changed(long, SFORM_CODE, "<h", 0)
    assert (read(long) == read(data)).all()


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_the_qform_is_used_where_the_sform_is_empty(data: bytes, value: float) -> None:
    empty = changed(data, SROW, "<12f", *[value] * 12)
    assert (read(empty) == read(data)).all()
    assert open_nifti(empty).geometry.positions == pytest.approx(open_nifti(data).geometry.positions, abs=1e-3)


def test_a_volume_whose_forms_are_both_unusable_is_refused_not_guessed(data: bytes) -> None:
    empty = changed(changed(data, SROW, "<12f", *[0.0] * 12), QUATERNION, "<3f", 0.0, 0.0, 5.0)
    with pytest.raises(ServiceError, match="no usable voxel sizes or positions"):
        read(empty)


def test_a_fourth_dimension_of_0_counts_as_1(data: bytes) -> None:
    four = changed(data, DIM, "<5h", 4, 64, 64, 4, 0)
    assert (read(four) == read(data)).all()


def test_two_volumes_are_refused(data: bytes) -> None:
    with pytest.raises(ServiceError, match="4 dimensions"):
        read(changed(data, DIM, "<5h", 4, 64, 64, 2, 2))


def test_voxels_that_are_no_number_are_air() -> None:
    image = volume(HEIGHTS)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[32, 32] = np.nan
    slices = read(nibabel.Nifti1Image(voxels, image.affine).to_bytes())
    assert (slices[:, 32, 32] == LUNG.grey(np.array(-1024.0))).all()
    assert (slices[:, 32, 31] == LUNG.grey(np.array(40.0))).all()


def test_a_small_gzip_of_a_huge_volume_is_refused_before_it_is_unpacked(data: bytes) -> None:
    bomb = gzipped(changed(data, DIM, "<4h", 3, 4096, 4096, 900)[:352] + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(ServiceError, match="announces 30198989152 bytes"):
        read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_gzip_is_unpacked_only_as_far_as_the_voxels(data: bytes) -> None:
    packed = gzipped(data + bytes(50_000_000))
    tracemalloc.start()
    assert (read(packed) == read(data)).all()
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [100, 400, -1])
def test_a_truncated_volume_is_damaged(data: bytes, cut: int) -> None:
    with pytest.raises(ServiceError, match="truncated"):
        read(data[:cut])


def test_a_damaged_gzip_is_named(data: bytes) -> None:
    packed = bytearray(gzipped(data))
    packed[40:60] = bytes(20)
    with pytest.raises(ServiceError, match=r"gzip|truncated|NIfTI"):
        read(bytes(packed))


UNUSABLE = [
    pytest.param(np.diag([1e200, 1e200, 1e200, 1]), {}, id="huge"),
    pytest.param(np.diag([1e306, 1, 1, 1]), {"xyzt_units": 1}, id="huge metres"),
    pytest.param(None, {"pixdim": [1, 0, 0, 0, 1, 1, 1, 1]}, id="no size"),
    pytest.param(None, {"pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}, id="not a number"),
    pytest.param(None, {"pixdim": [1, np.inf, 1, 1, 1, 1, 1, 1]}, id="infinite"),
]


@pytest.mark.parametrize(("affine", "fields"), UNUSABLE)
def test_a_volume_without_usable_sizes_is_damage(affine: np.ndarray | None, fields: dict[str, Any]) -> None:
    image = nibabel.Nifti2Image(np.zeros((64, 64, 3), np.int16), np.eye(4))
    header = image.header.copy()
    header["sform_code"], header["qform_code"] = int(affine is not None), 0
    if affine is not None:
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        header["pixdim"][1:4] = 0
    for name, value in fields.items():
        header[name] = value
    header["vox_offset"], header["magic"] = 544, image.header["magic"]
    with pytest.raises(ServiceError, match="no usable voxel sizes"):
        open_nifti(header.binaryblock + bytes(4 + 64 * 64 * 3 * 2))


def test_a_singular_sform_is_not_used(data: bytes) -> None:
    singular = changed(changed(data, SFORM_CODE, "<h", 1), SROW, "<12f", *[1, 1, 0, 0] * 3)
    assert (read(singular) == read(data)).all()
