from pathlib import Path

import numpy as np
import pytest

from tests.support.covid_ct import draw, png
from training.errors import TrainingError
from training.evaluation.out_of_distribution import generated_images, read_images


def test_generated_images_are_of_four_kinds_all_different_and_the_same_each_time() -> None:
    images, again = generated_images(seed=0), generated_images(seed=0)
    assert set(images) == {"noise", "gradient", "blank", "text"}
    for kind, members in images.items():
        assert {(image.shape, image.dtype) for image in members} == {((1, 256, 256), np.dtype(np.uint8))}
        assert len({image.tobytes() for image in members}) == len(members)
        assert all(np.array_equal(a, b) for a, b in zip(members, again[kind], strict=True))
    assert {len(np.unique(image)) for image in images["blank"]} == {1}


def test_folders_are_read_by_name_and_files_beside_them_are_left(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/b.png", "chest-ct/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(draw(0, 1)))
    (tmp_path / "README.md").write_text("about")
    assert {kind: len(members) for kind, members in read_images(tmp_path).items()} == {"chest-ct": 1, "photos": 2}


def test_a_folder_without_images_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no images; pass a folder with one sub-folder"):
        read_images(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no image")
    with pytest.raises(TrainingError, match=r"a\.png: "):
        read_images(tmp_path)
