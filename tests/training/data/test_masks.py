from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.sources.lesion_sources import draw_chest, write_labelled, write_lesions
from training.data.ct_slices import read_labelled, read_lesions
from training.data.masks import read_mask, segment_by_threshold
from training.errors import TrainingError


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        (np.array([[0, 1]], np.uint8), [False, True]),
        (np.array([[0, 255]], np.uint8), [False, True]),
        (np.array([[7, 3]], np.uint8), [True, False]),
        (np.array([[0, 1]], np.uint16), [False, True]),
        (np.array([[False, True]]), [False, True]),
        (np.array([[0, 100, 200, 255]], np.uint8), [False, False, True, True]),
    ],
    ids=["0 and 1", "0 and 255", "3 and 7", "16 bits", "one bit", "smooth edges"],
)
def test_of_two_values_the_larger_is_inside_and_smooth_edges_above_half(
    tmp_path: Path, values: np.ndarray, inside: list[bool]
) -> None:
    Image.fromarray(values).save(tmp_path / "a.png")
    width = values.shape[1]
    assert read_mask(tmp_path / "a.png", (width, 1), width)[0].tolist() == inside


def test_a_map_of_several_structures_is_refused_with_its_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match=r"a\.png: a mask has two values, this one has 4 \(0, 1, 2, 3\)"):
        read_mask(tmp_path / "a.png", (4, 1), 4)


def test_a_mask_that_is_inside_everywhere_is_refused(tmp_path: Path) -> None:
    """Such as a white picture whose mask is its transparency."""
    drawn = np.array([[0, 255]], np.uint8)
    Image.fromarray(np.stack([np.full_like(drawn, 255)] * 3 + [drawn], axis=-1)).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match=r"a\.png: the mask is 255 everywhere"):
        read_mask(tmp_path / "a.png", (2, 1), 2)


def test_masks_of_0_and_1_are_lesions_and_empty_ones_are_refused(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions", volumes=1)
    as_drawn = np.stack([slice_.lesion for slice_ in read_lesions(folder) if slice_.lesion is not None])
    for path in folder.glob("*.lesion.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    again = np.stack([slice_.lesion for slice_ in read_lesions(folder) if slice_.lesion is not None])
    assert np.array_equal(as_drawn, again)
    assert as_drawn.any((1, 2)).sum() == 2
    for path in folder.glob("*.lesion.png"):
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(path)
    with pytest.raises(TrainingError, match="lesions: no mask has a lesion; a mask is a picture of two values"):
        read_lesions(folder)


@pytest.mark.parametrize("kind", ["lesions", "labelled"])
def test_a_source_whose_lung_masks_are_all_empty_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_lesions(tmp_path / "source", volumes=1) if kind == "lesions" else write_labelled(tmp_path / "source")
    for path in [path for path in folder.rglob("*.png") if len(path.suffixes) == 1]:
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(path.with_suffix(".lung.png"))
    with pytest.raises(
        TrainingError, match=r"source: no mask \.lung\.png has a lung; a mask is a picture of two values"
    ):
        (read_lesions if kind == "lesions" else read_labelled)(folder)


def test_clear_lungs_are_segmented_by_threshold() -> None:
    grey, drawn, _ = draw_chest(300_000, lesion=False, size=320)
    lung = segment_by_threshold(grey)
    assert 2 * (lung & drawn).sum() / (lung.sum() + drawn.sum()) > 0.9
