import dataclasses
import random
import time
from typing import Any

import numpy as np
import pytest

from service.imaging.dicom.file import open_dicom
from service.imaging.series.grouping import Series, SeriesWarning, group_series
from service.imaging.series.place import Place, place_of_frame
from tests.support.files.dicoms import ct, ct_dataset, phantom, written
from tests.support.files.studies import AXIAL, positions, series

EVEN = [10.0 * step for step in range(6)]
ROTATED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)
UPSIDE_DOWN = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
TILT = np.radians(20)


def places(files: list[bytes]) -> list[Place]:
    """The place of the first frame of each file."""
    return [place_of_frame(open_dicom(file), 0) for file in files]


def grouped(files: list[bytes]) -> list[Series]:
    """The series of these files."""
    return group_series(places(files))


def only(files: list[bytes]) -> Series:
    """The only series of these files."""
    (stack,) = grouped(files)
    return stack


@pytest.mark.parametrize("directions", [AXIAL, ROTATED, UPSIDE_DOWN])
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_slices_are_ordered_by_position_from_the_feet_to_the_head(order: str, directions: Any) -> None:
    heights = EVEN if order == "forwards" else EVEN[::-1]
    files = series(heights, directions=directions)
    if order == "shuffled":
        random.Random(1).shuffle(files)
    stack = only(files)
    assert stack.geometry is not None
    assert stack.geometry.offsets.tolist() == pytest.approx(EVEN)
    assert stack.geometry.spacing == pytest.approx(10)
    assert not stack.warnings
    ordered = [places(files)[index].plane for index in stack.slices]
    assert [plane and plane.position[2] for plane in ordered] == EVEN


def test_the_instance_number_does_not_decide() -> None:
    files = [series([height], InstanceNumber=1)[0] for height in EVEN]
    assert only(files[::-1]).slices == (5, 4, 3, 2, 1, 0)


def test_series_are_parted_by_uid_size_and_direction() -> None:
    small = [ct_dataset(phantom(32)), ct_dataset(phantom(32))]
    for height, dataset in zip((0, 5), small, strict=True):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, height], list(AXIAL)
        dataset.PixelSpacing = [1, 1]
    tilted = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(np.sin(TILT)))
    files = [*series(EVEN), *series(EVEN, uid="1.2.4"), *series(EVEN, directions=tilted), *map(written, small)]
    assert [len(stack.slices) for stack in grouped(files)] == [6, 6, 6, 2]


def test_two_acquisitions_at_the_same_positions_are_two_series() -> None:
    files = [*series(EVEN, AcquisitionNumber=1), *series(EVEN, AcquisitionNumber=2)]
    assert [len(stack.slices) for stack in grouped(files)] == [6, 6]


def test_an_acquisition_for_each_slice_is_one_series() -> None:
    files = [series([height], AcquisitionNumber=number)[0] for number, height in enumerate(EVEN)]
    assert len(only(files).slices) == 6


def test_slices_at_one_position_are_named_and_the_first_is_kept() -> None:
    files = [*series(EVEN), *series([20.0], InstanceNumber=99)]
    stack = only(files)
    assert stack.duplicates == (6,)
    assert stack.slices == (0, 1, 2, 3, 4, 5)
    assert "not read: 1." in stack.warnings[SeriesWarning.DUPLICATE_POSITIONS]


def test_a_gap_is_named() -> None:
    heights = [5.0 * step for step in range(20) if step != 7]
    stack = only(series(heights))
    assert "5.0 mm apart in 1 of 18 places, up to 10.0 mm" in stack.warnings[SeriesWarning.GAPS]
    assert SeriesWarning.MIXED_SPACING not in stack.warnings


def test_mixed_spacing_is_named_with_its_distances() -> None:
    stack = only(series([0, 1, 2, 3, 8, 13, 18]))
    assert stack.warnings == {SeriesWarning.MIXED_SPACING: "Distances between slices differ: 1 mm (3), 5 mm (3)."}


def test_spacing_comes_from_positions_not_from_the_thickness() -> None:
    stack = only(series(EVEN, SliceThickness=2.5, SpacingBetweenSlices=2.5))
    assert stack.geometry is not None
    assert stack.geometry.spacing == 10


def test_a_tilted_gantry_is_named_and_its_spacing_is_along_the_normal() -> None:
    directions = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(-np.sin(TILT)))
    stack = only(series(EVEN, directions=directions))
    assert "tilted by 20.0 degrees" in stack.warnings[SeriesWarning.TILTED]
    assert stack.geometry is not None
    assert stack.geometry.spacing == pytest.approx(10 * np.cos(TILT))


def test_slices_without_position_keep_the_order_of_their_numbers() -> None:
    files = [ct(phantom(), SeriesInstanceUID="1.2", InstanceNumber=number) for number in (3, 1, 2)]
    stack = only(files)
    assert stack.slices == (1, 2, 0)
    assert stack.geometry is None
    assert list(stack.warnings) == [SeriesWarning.NO_POSITIONS]


@pytest.mark.parametrize("changes", [{"PixelSpacing": [0, 0]}, {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}])
def test_a_malformed_plane_counts_as_none(changes: dict[str, Any]) -> None:
    assert only(series(EVEN, **changes)).geometry is None


def test_a_single_slice_has_no_warnings() -> None:
    assert not only(series([10.0])).warnings


def test_the_source_of_each_slice_is_known_in_order() -> None:
    stack = only(series(EVEN[::-1]))
    assert stack.geometry is not None
    assert [source.sop_instance_uid for source in stack.geometry.sources] == [f"1.2.3.{n}" for n in range(6, 0, -1)]


def test_frames_of_an_enhanced_file_have_places_of_their_own() -> None:
    from pydicom.dataset import Dataset

    dataset = ct_dataset(np.stack([phantom()] * 3), SOPInstanceUID="1.9")
    dataset.SharedFunctionalGroupsSequence = [shared := Dataset()]
    shared.PlaneOrientationSequence = [orientation := Dataset()]
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = [measures := Dataset()]
    measures.PixelSpacing = [5, 5]
    dataset.PerFrameFunctionalGroupsSequence = []
    for position in positions([30, 10, 20]):
        dataset.PerFrameFunctionalGroupsSequence.append(frame := Dataset())
        frame.PlanePositionSequence = [plane := Dataset()]
        plane.ImagePositionPatient = list(position)
    file = open_dicom(written(dataset))
    (stack,) = group_series([place_of_frame(file, index) for index in range(3)])
    assert stack.slices == (1, 2, 0)
    assert stack.geometry is not None
    assert [source.frame for source in stack.geometry.sources] == [2, 3, 1]


@pytest.mark.parametrize("has_plane", [False, True])
def test_a_dicom_file_with_the_name_of_a_picture_or_volume_as_uid_is_no_part_of_it(has_plane: bool) -> None:
    (place,) = places(series([10.0]))
    dicom = dataclasses.replace(place, plane=place.plane if has_plane else None)
    other = dataclasses.replace(dicom, order=("scan", 1.0, ".png"), source=None)
    assert [stack.slices for stack in group_series([dicom, other])] == [(0,), (1,)]


def test_two_thousand_slices_with_other_pixel_spacings_are_grouped_in_seconds() -> None:
    (place,) = places(series([10.0]))
    assert place.plane is not None
    spacings = [1e-6 * 1.0125**number for number in range(2000)]
    planes = [dataclasses.replace(place.plane, pixel_spacing=(spacing, spacing)) for spacing in spacings]
    began = time.process_time()
    stack = group_series([dataclasses.replace(place, plane=plane) for plane in planes])
    assert time.process_time() - began < 10  # comparing all pairs takes a minute
    assert [series_.slices for series_ in stack] == [(index,) for index in range(2000)]
