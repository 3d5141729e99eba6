import shutil
from pathlib import Path

import pytest

from tests.support.sources.external_ct import write_external_ct
from training.data.covid_ct import CovidCt, Split
from training.data.external_ct import read_external
from training.errors import TrainingError


def test_labels_are_those_of_the_folders_and_other_files_are_skipped(tmp_path: Path) -> None:
    split = read_external(write_external_ct(tmp_path / "hospital", 2), known=())
    assert (split.name, split.labels.tolist()) == ("hospital", [0, 0, 1, 1])
    brightness = [each.pixels.mean() for each in split.slices]
    assert max(brightness[:2]) < min(brightness[2:])


def test_slices_of_covid_ct_are_left_out(data: CovidCt, tmp_path: Path) -> None:
    root = write_external_ct(tmp_path / "hospital", 2)
    paths = [each.path for each in read_external(root, known=data).slices]
    assert len(paths) == 4
    known = Split("val", read_external(root, known=()).slices[1:2])
    assert [each.path for each in read_external(root, known=[known]).slices] == [paths[0], *paths[2:]]


def test_a_missing_folder_one_without_images_and_a_damaged_image_are_named(tmp_path: Path) -> None:
    root = write_external_ct(tmp_path / "hospital", 2)
    damaged = root / "COVID" / "patient" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"COVID/patient/0\.png: "):
        read_external(root, known=())
    shutil.rmtree(root / "COVID" / "patient")
    with pytest.raises(TrainingError, match=r"COVID: no images"):
        read_external(root, known=())
    shutil.rmtree(root / "COVID")
    with pytest.raises(TrainingError, match=r"hospital: no folder COVID; pass a folder with sub-folders"):
        read_external(root, known=())
