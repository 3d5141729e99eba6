import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom_out.masks import Segment, SeriesMaps, SliceMaps
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import SourceHeaderError, read_source
from service.imaging.orientation import Turn
from tests.service.dicom_out.objects import DEVICE, dciodvfy, frame_values, read_segmentation
from tests.support.files.ball_series import SPACING, maps, series
from tests.support.files.chest import BALL, BALL_ML, LUNG_ML, LUNGS

TILT = np.radians(20)
ORIENTATIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "from the head to the feet": {"step": (0, 0, -10.0)},
    "upside down": {"row": (-1, 0, 0), "column": (0, -1, 0), "turn": Turn(flip_rows=True, flip_columns=True)},
    "prone, feet first": {"row": (-1, 0, 0), "step": (0, 0, -10.0), "turn": Turn(flip_columns=True)},
    "rows along the body's depth": {"row": (0, 1, 0), "column": (1, 0, 0), "turn": Turn(transpose=True)},
    "tilted gantry": {"column": (0, np.cos(TILT), -np.sin(TILT)), "count": 40},
    "tilted, perpendicular": {
        "column": (0, np.cos(TILT), np.sin(TILT)),
        "step": (0, -8 * np.sin(TILT), 8 * np.cos(TILT)),
        "count": 44,
    },
}


def built(kind: Any = "binary", **changes: Any) -> tuple[Dataset, SeriesMaps]:
    """SEG of the drawn chest, and the maps in it."""
    chest = maps(series(**changes))
    return segmentation(read_source(chest.geometry.sources), chest, DEVICE, kind), chest


def places(result: Dataset, segment: Segment) -> NDArray[np.float64]:
    """Places in mm of all pixels of a segment, by the elements of the file alone."""
    shared = result.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    pixels = result.pixel_array
    corners = []
    for frame, groups in zip(pixels, result.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            rows, columns = np.nonzero(frame)
            corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, np.float64)
            along = np.outer(rows, direction[3:] * between_rows) + np.outer(columns, direction[:3] * between_columns)
            corners.append(corner + along)
    return np.concatenate(corners)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_ball_has_its_volume_and_its_place_in_the_patient(orientation: str) -> None:
    result, chest = built(**ORIENTATIONS[orientation])
    spacing = chest.geometry.spacing
    assert spacing is not None
    voxel_ml = SPACING * SPACING * spacing / 1000
    read = read_segmentation(result)
    for segment, centre, volume in (
        (Segment.LESION, BALL, BALL_ML),
        (Segment.LEFT_LUNG, LUNGS["left"], LUNG_ML),
        (Segment.RIGHT_LUNG, LUNGS["right"], LUNG_ML),
    ):
        voxels = places(read, segment)
        assert len(voxels) * voxel_ml == pytest.approx(volume, rel=0.03)
        assert np.linalg.norm(voxels.mean(axis=0) - centre) < 2


def expected_frames(chest: SeriesMaps) -> dict[tuple[int, str, int | None], NDArray[np.bool_]]:
    """Masks that are not empty, by segment and frame of the source."""
    masks = {}
    for index, source in enumerate(chest.geometry.sources):
        for segment, mask in zip(Segment, chest.masks(index), strict=True):
            if mask.any():
                masks[int(segment), source.sop_instance_uid, source.frame] = mask
    return masks


def assert_same_frames(result: Dataset, chest: SeriesMaps) -> None:
    frames, expected = frame_values(result), expected_frames(chest)
    assert frames.keys() == expected.keys()
    assert all(np.array_equal(frames[key], mask) for key, mask in expected.items())


def test_frames_are_the_enlarged_maps_and_empty_ones_are_left_out() -> None:
    result, chest = built()
    assert_same_frames(read_segmentation(result), chest)


def test_highdicom_finds_the_masks_by_source_instance() -> None:
    result, chest = built(count=5)
    pixels = read_segmentation(result).get_pixels_by_source_instance([chest.geometry.sources[2].sop_instance_uid])
    assert np.array_equal(np.moveaxis(pixels[0], -1, 0), chest.masks(2))


def test_fractional_frames_are_probabilities() -> None:
    result, chest = built("fractional", count=5)
    read = read_segmentation(result)
    assert (read.SegmentationType, read.SegmentationFractionalType, read.MaximumFractionalValue) == (
        "FRACTIONAL",
        "PROBABILITY",
        255,
    )
    frames = frame_values(read)
    for segment, probability in zip(Segment, chest.probabilities(2), strict=True):
        stored = frames[int(segment), chest.geometry.sources[2].sop_instance_uid, None]
        assert np.abs(stored / 255 - probability).max() <= 0.5 / 255 + 1e-6


def test_sizes_that_are_no_multiple_of_a_byte_keep_their_bits() -> None:
    chest = maps(dataclasses.replace(series(count=3), rows=151, columns=153))
    assert_same_frames(segmentation(read_source(chest.geometry.sources), chest, DEVICE), chest)


@pytest.mark.parametrize("kind", ["binary", "fractional"])
def test_dciodvfy_has_nothing_to_say(kind: str, tmp_path: Path) -> None:
    assert dciodvfy(built(kind, count=7)[0], tmp_path) == []


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path: Path) -> None:
    result, chest = built(frames=True, count=7)
    assert_same_frames(result, chest)
    (instance,) = result.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == "1.2.3"
    assert len(result.SourceImageSequence) == 1
    assert dciodvfy(result, tmp_path) == []


def test_segments_have_their_codes_and_say_what_they_are() -> None:
    left, right, lesion = built(count=3)[0].SegmentSequence
    for description, side in ((left, "7771000"), (right, "24028007")):
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert all("Research only" in segment.SegmentDescription for segment in (left, right, lesion))
    assert all("enlarged" in segment.SegmentDescription for segment in (left, right, lesion))


def test_the_same_series_and_model_give_the_same_identifiers() -> None:
    first, again = built(count=3)[0], built(count=3)[0]
    more = built(count=4)[0]
    assert first.SOPInstanceUID == again.SOPInstanceUID != more.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID == more.SeriesInstanceUID


def test_a_source_without_frame_of_reference_has_no_segmentation() -> None:
    with pytest.raises(SourceHeaderError, match="FrameOfReferenceUID"):
        built(count=3, FrameOfReferenceUID=None)


def test_two_slices_at_one_place_have_no_segmentation() -> None:
    with pytest.raises(SourceHeaderError, match="one place"):
        built(count=3, step=(0, 0, 0))


def test_a_series_without_any_lesion_has_no_frame_of_it() -> None:
    chest = maps(series(count=3))
    clear = [maps and SliceMaps(maps.lungs, np.zeros_like(maps.lesion), maps.border) for maps in chest.slices]
    result = segmentation(read_source(chest.geometry.sources), dataclasses.replace(chest, slices=clear), DEVICE)
    assert {number for number, _, _ in frame_values(result)} == {Segment.LEFT_LUNG, Segment.RIGHT_LUNG}
    assert len(result.SegmentSequence) == 3


def test_a_series_without_lungs_can_be_written_too(tmp_path: Path) -> None:
    chest = maps(series(count=3))
    empty = dataclasses.replace(chest, slices=[None] * 3)
    result = segmentation(read_source(chest.geometry.sources), empty, DEVICE)
    assert not read_segmentation(result).pixel_array.any()
    assert dciodvfy(result, tmp_path) == []


def test_frames_lie_on_one_grid_and_segments_are_complete() -> None:
    """Those are the rules by which dcmqi's segimage2itkimage rebuilds volumes."""
    result, _ = built(SliceThickness=1.0, SpacingBetweenSlices=1.0)
    (shared,) = result.SharedFunctionalGroupsSequence
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    (measures,) = shared.PixelMeasuresSequence
    frames = result.PerFrameFunctionalGroupsSequence
    places = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=float)
    steps = (places - places[0]) @ np.cross(*directions) / float(measures.SpacingBetweenSlices)
    assert steps == pytest.approx(np.round(steps), abs=0.01)
    assert (places - places[0]) @ directions.T == pytest.approx(0, abs=0.01)
    assert [segment.SegmentNumber for segment in result.SegmentSequence] == [1, 2, 3]
    assert {segment.SegmentAlgorithmType for segment in result.SegmentSequence} == {"AUTOMATIC"}
    assert all(segment.RecommendedDisplayCIELabValue for segment in result.SegmentSequence)
    assert {frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber for frame in frames} == {1, 2, 3}
