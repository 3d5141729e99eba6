from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.ct_folders import write_labelled_folders
from tests.training.data_set import draw, png
from training.data import CovidCt
from training.errors import TrainingError
from training.other_ct import CtFolders, set_of
from training.views import shrink


@pytest.fixture
def folders() -> CtFolders:
    return CtFolders((), partial(shrink, side=40))


def test_every_image_below_a_folder_is_read_whatever_its_name_and_other_files_are_left(
    folders: CtFolders, tmp_path: Path
) -> None:
    root = write_labelled_folders(tmp_path / "other", 2)
    (root / "without-suffix").write_bytes(png(draw(0, 1).resize((60, 80))))
    read = folders.read(root)
    assert [image.shape[1:] for image in read.images] == [(40, 40)] * 4 + [(53, 40)]
    assert {image.dtype for image in read.images} == {torch.uint8}
    assert (read.name, read.labels) == (str(root), ())


def test_labels_are_those_of_the_folders_covid_and_noncovid(folders: CtFolders, tmp_path: Path) -> None:
    read = folders.read_labelled(write_labelled_folders(tmp_path / "other", 2))
    assert read.labels == (0, 0, 1, 1)
    brightness = [image.float().mean().item() for image in read.images]
    assert max(brightness[:2]) < min(brightness[2:])


def test_a_set_is_told_from_one_with_other_labels(folders: CtFolders, tmp_path: Path) -> None:
    root = write_labelled_folders(tmp_path / "other", 1)
    before = folders.read_labelled(root).sha256
    assert folders.read_labelled(root).sha256 == before
    (root / "COVID").rename(root / "moved")
    (root / "NonCOVID").rename(root / "COVID")
    (root / "moved").rename(root / "NonCOVID")
    assert folders.read_labelled(root).sha256 != before


def test_slices_of_validation_and_test_are_left_out_whatever_file_they_are_in(
    data: CovidCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, scan in enumerate([data.train.scans[0], data.val.scans[0], data.test.scans[0]]):
        Image.fromarray(scan.ct_slice[0]).save(tmp_path / f"{number}.bmp")
    read = CtFolders((data.val, data.test), partial(shrink, side=40)).read(tmp_path)
    assert len(read.images) == 1
    torch.testing.assert_close(read.images[0], set_of(data.train, 40).images[0])
    assert "2 left out, slices of COVID-CT's validation or test" in capsys.readouterr().err


def test_what_is_missing_or_damaged_is_named(folders: CtFolders, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nowhere: no such folder; --other-ct must name"):
        folders.read(tmp_path / "nowhere")
    (tmp_path / "COVID").mkdir()
    with pytest.raises(TrainingError, match=r"NonCOVID: no such folder.*with the folders COVID and NonCOVID"):
        folders.read_labelled(tmp_path)
    with pytest.raises(TrainingError, match=r"COVID: no images in it"):
        folders.read(tmp_path / "COVID")
    (tmp_path / "COVID" / "half.png").write_bytes(png(draw(0, 0))[:200])
    with pytest.raises(TrainingError, match=r"half\.png: The image is damaged"):
        folders.read(tmp_path / "COVID")
