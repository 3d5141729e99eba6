import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom_out.masks import Segment, stored_masks, stored_probabilities
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import SourceHeaderError, read_source
from service.imaging.dicom_checks import Turn
from tests.service.dicom_out.objects import DEVICE, dciodvfy, frame_values, read_segmentation, written
from tests.support.files.ball_series import BALL, BALL_ML, LUNG_ML, LUNGS, maps, series

TILT = np.radians(20)
ORIENTATIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "from the head to the feet": {"step": (0, 0, -5.0)},
    "upside down": {"row": (-1, 0, 0), "column": (0, -1, 0), "turn": Turn(flip_rows=True, flip_columns=True)},
    "prone, feet first": {"row": (-1, 0, 0), "step": (0, 0, -5.0), "turn": Turn(flip_columns=True)},
    "rows along the body's depth": {"row": (0, 1, 0), "column": (1, 0, 0), "turn": Turn(transpose=True)},
    "tilted gantry": {"column": (0, np.cos(TILT), -np.sin(TILT)), "count": 61},
    "tilted, perpendicular": {
        "column": (0, np.cos(TILT), np.sin(TILT)),
        "step": (0, -4 * np.sin(TILT), 4 * np.cos(TILT)),
        "count": 71,
    },
}


def built(kind: Any = "binary", **changes: Any) -> tuple[Dataset, Any, list[Any]]:
    geometry = series(**changes)
    found = maps(geometry)
    return segmentation(read_source(geometry), found, DEVICE, kind), geometry, found


def places(result: Dataset, segment: Segment) -> NDArray[np.float64]:
    """Places in mm of all pixels of a segment, by the elements of the file alone."""
    shared = result.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    pixels = result.pixel_array
    found = []
    for frame, groups in zip(pixels, result.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            rows, columns = np.nonzero(frame)
            corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, np.float64)
            along = np.outer(rows, direction[3:] * between_rows) + np.outer(columns, direction[:3] * between_columns)
            found.append(corner + along)
    return np.concatenate(found)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_ball_has_its_volume_and_its_place_in_the_patient(orientation: str) -> None:
    result, geometry, _ = built(**ORIENTATIONS[orientation])
    voxel_ml = geometry.pixel_area * geometry.spacing / 1000
    read = read_segmentation(result)
    for segment, centre, volume in (
        (Segment.LESION, BALL, BALL_ML),
        (Segment.LEFT_LUNG, LUNGS["left"], LUNG_ML),
        (Segment.RIGHT_LUNG, LUNGS["right"], LUNG_ML),
    ):
        found = places(read, segment)
        assert len(found) * voxel_ml == pytest.approx(volume, rel=0.03)
        assert np.linalg.norm(found.mean(axis=0) - centre) < 2


def test_frames_are_the_enlarged_maps_and_empty_ones_are_left_out() -> None:
    result, geometry, found = built()
    frames = frame_values(read_segmentation(result))
    expected = {
        (int(segment), source.sop_instance_uid, None): stored_masks(each, geometry)[segment - 1]
        for each, source in zip(found, geometry.sources, strict=True)
        if each is not None
        for segment in Segment
    }
    expected = {key: mask for key, mask in expected.items() if mask.any()}
    assert frames.keys() == expected.keys()
    assert all(np.array_equal(frames[key], mask) for key, mask in expected.items())


def test_highdicom_finds_the_masks_by_source_instance() -> None:
    result, geometry, found = built()
    at = len(found) // 2
    pixels = read_segmentation(result).get_pixels_by_source_instance([geometry.sources[at].sop_instance_uid])
    for segment in Segment:
        assert np.array_equal(pixels[0, ..., segment - 1], stored_masks(found[at], geometry)[segment - 1])


def test_fractional_frames_are_probabilities() -> None:
    result, geometry, found = built("fractional", count=5)
    read = read_segmentation(result)
    assert (read.SegmentationType, read.SegmentationFractionalType, read.MaximumFractionalValue) == (
        "FRACTIONAL",
        "PROBABILITY",
        255,
    )
    key = (int(Segment.LESION), geometry.sources[2].sop_instance_uid, None)
    expected = stored_probabilities(found[2], geometry)[Segment.LESION - 1]
    assert np.abs(frame_values(read)[key] / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_sizes_that_are_no_multiple_of_a_byte_keep_their_bits() -> None:
    odd = dataclasses.replace(series(count=3), rows=151, columns=153)
    found = maps(odd)
    frames = frame_values(read_segmentation(segmentation(read_source(odd), found, DEVICE)))
    for source, each in zip(odd.sources, found, strict=True):
        assert each is not None
        mask = stored_masks(each, odd)[Segment.LEFT_LUNG - 1]
        assert np.array_equal(frames[1, source.sop_instance_uid, None], mask)


@pytest.mark.parametrize("kind", ["binary", "fractional"])
def test_dciodvfy_has_nothing_to_say(kind: str, tmp_path: Path) -> None:
    assert dciodvfy(built(kind, count=7)[0], tmp_path) == []


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path: Path) -> None:
    result, geometry, found = built(frames=True, count=7)
    frames = frame_values(result)
    for source, each in zip(geometry.sources, found, strict=True):
        assert each is not None
        mask = stored_masks(each, geometry)[Segment.LEFT_LUNG - 1]
        assert np.array_equal(frames[1, "1.2.3", source.frame], mask)
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
    assert all("Research only" in each.SegmentDescription for each in (left, right, lesion))
    assert all("enlarged" in each.SegmentDescription for each in (left, right, lesion))


def test_the_same_series_and_model_give_the_same_identifiers() -> None:
    first, again = built(count=3)[0], built(count=3)[0]
    more = built(count=4)[0]
    assert first.SOPInstanceUID == again.SOPInstanceUID != more.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID == more.SeriesInstanceUID


def test_a_source_without_frame_of_reference_has_no_segmentation() -> None:
    with pytest.raises(SourceHeaderError, match="FrameOfReferenceUID"):
        built(count=3, FrameOfReferenceUID=None)


def test_two_slices_at_one_place_have_no_segmentation() -> None:
    with pytest.raises(SourceHeaderError, match="duplicates"):
        built(count=3, step=(0, 0, 0))


def test_a_series_without_any_lesion_has_an_object_without_frames_of_it() -> None:
    geometry = series(count=3)
    found = [each and type(each)(each.lungs, np.zeros_like(each.lesion), each.border) for each in maps(geometry)]
    read = read_segmentation(segmentation(read_source(geometry), found, DEVICE))
    assert {number for number, _, _ in frame_values(read)} == {Segment.LEFT_LUNG, Segment.RIGHT_LUNG}
    assert len(written(read)) > 0
