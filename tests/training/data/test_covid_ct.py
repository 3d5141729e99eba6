import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service.imaging.decode import decode, to_input
from tests.support.sources.covid_ct import Lists, png, small_files, small_lists, write_data_set
from training.data.covid_ct import (
    CovidCt,
    SplitName,
    plain_inputs,
    read_covid_ct,
)
from training.errors import TrainingError

COUNTS: dict[SplitName, int] = {"train": 2, "val": 1, "test": 1}

Files = dict[str, dict[str, bytes]]


def write_changed(root: Path, change: Callable[[Lists, Files], object]) -> Path:
    lists = small_lists(COUNTS)
    files = small_files(lists)
    change(lists, files)
    return write_data_set(root, lists, files)


def test_zips_and_unzipped_folders_read_alike(tmp_path: Path) -> None:
    lists = small_lists(COUNTS)
    roots = [
        write_data_set(tmp_path / str(zipped), lists, small_files(lists), zipped=zipped) for zipped in (True, False)
    ]
    zipped, unzipped = (read_covid_ct(root, "any") for root in roots)
    for a, b in zip(zipped, unzipped, strict=True):
        assert a.fingerprint() == b.fingerprint()
        assert [slice_.path for slice_ in a.slices] == [slice_.path for slice_ in b.slices]


def test_slices_have_label_path_format_and_a_fingerprint_of_their_files(data: CovidCt) -> None:
    assert len(data.train.slices) == 16
    for slice_ in data.train.slices:
        assert slice_.label == int(slice_.path.startswith("CT_COVID/"))
        assert slice_.encoding == "PNG L"
    assert data.train_and_val().slices == (*data.train.slices, *data.val.slices)
    hashes = sorted(slice_.sha256 for slice_ in data.val.slices)
    assert data.val.fingerprint().sha256 == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert data.val.fingerprint().count == 8


def test_inputs_are_exactly_those_of_the_service(data: CovidCt) -> None:
    images = plain_inputs(data.test, 32)
    assert (images.shape, images.dtype) == ((8, 1, 32, 32), torch.uint8)
    at = [slice_.path for slice_ in data.test.slices].index("CT_COVID/covid-test%0.png")
    files = small_files(small_lists({"train": 8, "val": 4, "test": 4}))
    np.testing.assert_array_equal(images[at].numpy(), to_input(decode(files["COVID"]["covid-test%0.png"]), 32))


def _lose_an_image(_: Lists, files: Files) -> None:
    del files["COVID"]["covid-val%0.png"]


def _cut_an_image(_: Lists, files: Files) -> None:
    files["NonCOVID"]["noncovid-test%0.png"] = files["NonCOVID"]["noncovid-test%0.png"][:100]


def _copy_an_image_in_another_format(_: Lists, files: Files) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(files["COVID"]["covid-train%0.png"])).convert("RGBA").save(file, "PNG")
    files["COVID"]["covid-test%0.png"] = file.getvalue()


def _list_a_file_twice(lists: Lists, _: Files) -> None:
    lists["val", "COVID"] *= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lose_an_image, r"CT_COVID/covid-val%0\.png.*not among the images"),
        (_cut_an_image, r"CT_NonCOVID/noncovid-test%0\.png: The image is damaged"),
        (
            _copy_an_image_in_another_format,
            r"covid-test%0\.png of test is the same image as .*covid-train%0\.png of train",
        ),
        (_list_a_file_twice, r"valCT_COVID\.txt: covid-val%0\.png is listed twice"),
    ],
)
def test_an_image_or_list_that_is_wrong_is_named(
    tmp_path: Path, change: Callable[[Lists, Files], object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        read_covid_ct(write_changed(tmp_path / "d", change), "any")


def test_split_lists_of_another_length_than_the_official_ones_are_refused(data_root: Path) -> None:
    with pytest.raises(TrainingError, match=r"trainCT_COVID\.txt: 8 images are listed, the official split has 191"):
        read_covid_ct(data_root)


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and no more")


def _damage_an_image(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, r"neither CT_COVID\.zip nor the folder"),
        (_truncate, r"CT_COVID\.zip: not a complete zip file"),
        (_damage_an_image, r"CT_COVID/covid-train%0\.png: damaged in its zip .*Bad CRC-32"),
    ],
)
def test_a_missing_or_damaged_zip_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = write_changed(tmp_path / "d", lambda *_: None)
    damage(root / "Images-processed/CT_COVID.zip")
    with pytest.raises(TrainingError, match=message):
        read_covid_ct(root, "any")


def test_excluded_slices_are_not_read_and_an_unknown_one_is_refused(data_root: Path, tmp_path: Path) -> None:
    table = tmp_path / "exclude.csv"
    table.write_text("file,class,why\ncovid-train%0.png,COVID,a control\n")
    data = read_covid_ct(data_root, "any", table)
    assert len(data.train.slices) == 15
    assert "CT_COVID/covid-train%0.png" not in {slice_.path for slice_ in data.train.slices}
    table.write_text("file,class\ncovid-trian%0.png,COVID\n")
    with pytest.raises(TrainingError, match=r"--exclude: CT_COVID/covid-trian%0\.png is in no split list"):
        read_covid_ct(data_root, "any", table)


def test_a_scaled_copy_in_another_split_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def leak(_: Lists, files: Files) -> None:
        files["COVID"] = {name: png(drawn(seed, 60)) for seed, name in enumerate(files["COVID"])}
        files["NonCOVID"] = {name: png(drawn(50 + seed, 60)) for seed, name in enumerate(files["NonCOVID"])}
        files["NonCOVID"]["noncovid-test%0.png"] = png(drawn(0, 90))

    read_covid_ct(write_changed(tmp_path / "d", leak), "any")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "train and test share pictures" in warning
    assert "CT_COVID/covid-train%0.png and CT_NonCOVID/noncovid-test%0.png; --exclude" in warning


def drawn(seed: int, size: int) -> Image.Image:
    """A smooth random picture, the same at every size."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def test_the_real_data_set_is_read_whole_and_its_splits_are_disjoint(covid_ct_root: Path) -> None:
    data = read_covid_ct(covid_ct_root)
    assert [len(split.slices) for split in data] == [425, 118, 203]
    assert [int(split.labels.sum()) for split in data] == [191, 60, 98]
