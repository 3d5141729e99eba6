from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.sources.lesion_sources import write_lesions
from training.data.ct_slices import read_lesions
from training.data.masks import read_mask
from training.errors import TrainingError


def write_square(path: Path, outside: int, inside: int, mode: str = "L") -> Path:
    """A mask of 8 x 8 whose left half is inside."""
    values = np.full((8, 8), outside, np.uint16 if mode == "I;16" else np.uint8)
    values[:, :4] = inside
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("outside", "inside", "mode"), [(0, 1, "L"), (0, 255, "L"), (0, 2, "L"), (3, 7, "L"), (0, 1, "I;16")]
)
def test_of_any_two_values_the_larger_is_inside(tmp_path: Path, outside: int, inside: int, mode: str) -> None:
    mask = read_mask(write_square(tmp_path / "a.png", outside, inside, mode), (8, 8), 16)
    assert mask.shape == (16, 16)
    assert mask[:, :7].all()
    assert not mask[:, 9:].any()


def test_a_mask_of_one_bit_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=np.bool_)).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png", (8, 8), 8), np.eye(8, dtype=np.bool_))


def test_smooth_edges_are_inside_above_half(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 200, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", (4, 1), 4)[0].tolist() == [False, False, True, True]


def test_a_map_of_several_structures_is_refused_with_its_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match=r"a\.png: a mask has two values, this one has 4 \(0, 1, 2, 3\)"):
        read_mask(tmp_path / "a.png", (4, 1), 4)


def test_masks_of_0_and_1_are_lesions(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions", volumes=1)
    as_drawn = np.stack([slice_.lesion for slice_ in read_lesions(folder) if slice_.lesion is not None])
    for path in folder.glob("*.lesion.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    again = np.stack([slice_.lesion for slice_ in read_lesions(folder) if slice_.lesion is not None])
    assert np.array_equal(as_drawn, again)
    assert as_drawn.any((1, 2)).sum() == 2


def test_a_source_whose_masks_are_all_empty_is_refused(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions", volumes=1)
    for path in folder.glob("*.lesion.png"):
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(path)
    with pytest.raises(TrainingError, match="lesions: no mask has a lesion; a mask is a picture of two values"):
        read_lesions(folder)
