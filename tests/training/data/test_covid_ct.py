import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.sources.covid_ct import png, small_files, small_lists, write_data_set
from training.data.covid_ct import OFFICIAL_COUNTS, CovidCt, SplitName, read_covid_ct, read_data
from training.errors import TrainingError

COUNTS: dict[SplitName, int] = {"train": 2, "val": 1, "test": 1}


Change = Callable[[dict[str, dict[str, bytes]]], None]


def write_changed(root: Path, change: Change) -> Path:
    lists = small_lists(COUNTS)
    files = small_files(lists)
    change(files)
    return write_data_set(root, lists, files)


def test_zips_and_unzipped_folders_read_alike(tmp_path: Path) -> None:
    lists = small_lists(COUNTS)
    roots = [
        write_data_set(tmp_path / str(zipped), lists, small_files(lists), zipped=zipped) for zipped in (True, False)
    ]
    zipped, unzipped = (read_covid_ct(root, counts=None) for root in roots)
    for a, b in zip(zipped, unzipped, strict=True):
        assert a.fingerprint() == b.fingerprint()
        assert [slice_.path for slice_ in a.slices] == [slice_.path for slice_ in b.slices]


def test_covid_is_class_1_and_paths_name_class_and_file(data: CovidCt) -> None:
    assert len(data.train.slices) == 16
    for slice_ in data.train.slices:
        assert slice_.label == int(slice_.path.startswith("CT_COVID/"))
        assert "%" in slice_.path


def test_train_and_validation_together_are_train_then_validation_and_nothing_of_test(data: CovidCt) -> None:
    assert data.train_and_val().slices == (*data.train.slices, *data.val.slices)


def test_fingerprint_is_the_hash_of_the_sorted_file_hashes(data: CovidCt) -> None:
    hashes = sorted(slice_.sha256 for slice_ in data.val.slices)
    assert data.val.fingerprint().sha256 == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert data.val.fingerprint().count == 8


def test_a_listed_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write_changed(tmp_path / "d", lambda files: files["COVID"].__delitem__("covid-val%0.png"))
    with pytest.raises(TrainingError, match=r"CT_COVID/covid-val%0\.png.*not among the images"):
        read_covid_ct(root, counts=None)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    def damage(files: dict[str, dict[str, bytes]]) -> None:
        files["NonCOVID"]["noncovid-test%0.png"] = files["NonCOVID"]["noncovid-test%0.png"][:100]

    with pytest.raises(TrainingError, match=r"CT_NonCOVID/noncovid-test%0\.png: The image is damaged"):
        read_covid_ct(write_changed(tmp_path / "d", damage), counts=None)


def test_the_same_pixels_in_two_splits_are_refused_even_in_another_file_format(tmp_path: Path) -> None:
    def leak(files: dict[str, dict[str, bytes]]) -> None:
        file = io.BytesIO()
        decoded = Image.open(io.BytesIO(files["COVID"]["covid-train%0.png"]))
        decoded.convert("RGBA").save(file, "PNG")
        files["COVID"]["covid-test%0.png"] = file.getvalue()

    with pytest.raises(
        TrainingError, match=r"covid-test%0\.png of test is the same image as .*covid-train%0\.png of train"
    ):
        read_covid_ct(write_changed(tmp_path / "d", leak), counts=None)


def test_split_lists_of_another_length_than_the_official_ones_are_refused(data_root: Path) -> None:
    with pytest.raises(TrainingError, match=r"trainCT_COVID\.txt: 8 images are listed, the official split has 191"):
        read_covid_ct(data_root)


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    lists = small_lists(COUNTS)
    lists["val", "COVID"] *= 2
    root = write_data_set(tmp_path / "d", lists, small_files(lists))
    with pytest.raises(TrainingError, match=r"valCT_COVID\.txt: covid-val%0\.png is listed twice"):
        read_covid_ct(root, counts=None)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("Images-processed/CT_COVID.zip", r"neither CT_COVID\.zip nor the folder"),
        ("Data-split/COVID/trainCT_COVID.txt", r"trainCT_COVID\.txt: can't read the split list: No such file"),
    ],
)
def test_a_missing_part_of_the_data_set_is_named(tmp_path: Path, gone: str, message: str) -> None:
    root = write_changed(tmp_path / "d", lambda _: None)
    (root / gone).unlink()
    with pytest.raises(TrainingError, match=message):
        read_covid_ct(root, counts=None)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    root = write_changed(tmp_path / "d", lambda _: None)
    (root / "Images-processed/CT_COVID.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrainingError, match=r"CT_COVID\.zip: not a complete zip file"):
        read_covid_ct(root, counts=None)


def test_a_damaged_image_inside_a_whole_zip_is_named(tmp_path: Path) -> None:
    root = write_changed(tmp_path / "d", lambda _: None)
    path = root / "Images-processed/CT_COVID.zip"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=r"CT_COVID/covid-train%0\.png: damaged in its zip .*Bad CRC-32"):
        read_covid_ct(root, counts=None)


def test_excluded_slices_are_not_read_and_an_unknown_one_is_refused(data_root: Path, tmp_path: Path) -> None:
    table = tmp_path / "exclude.csv"
    table.write_text("file,class,why\ncovid-train%0.png,COVID,a control\n")
    data = read_data(data_root, "any", table)
    assert len(data.train.slices) == 15
    assert "CT_COVID/covid-train%0.png" not in {slice_.path for slice_ in data.train.slices}
    table.write_text("file,class\ncovid-trian%0.png,COVID\n")
    with pytest.raises(TrainingError, match=r"--exclude: CT_COVID/covid-trian%0\.png is in no split list"):
        read_data(data_root, "any", table)


def test_a_scaled_copy_in_another_split_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def leak(files: dict[str, dict[str, bytes]]) -> None:
        files["COVID"] = {name: png(drawn(seed, 60)) for seed, name in enumerate(files["COVID"])}
        files["NonCOVID"] = {name: png(drawn(50 + seed, 60)) for seed, name in enumerate(files["NonCOVID"])}
        files["NonCOVID"]["noncovid-test%0.png"] = png(drawn(0, 90))

    read_covid_ct(write_changed(tmp_path / "d", leak), counts=None)
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "train and test share pictures" in warning
    assert "CT_COVID/covid-train%0.png and CT_NonCOVID/noncovid-test%0.png; --exclude" in warning


def drawn(seed: int, size: int) -> Image.Image:
    """A smooth random picture, the same at every size."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def test_the_real_data_set_is_read_whole_and_its_splits_are_disjoint(covid_ct_root: Path) -> None:
    data = read_covid_ct(covid_ct_root, OFFICIAL_COUNTS)
    assert [len(split.slices) for split in data] == [425, 118, 203]
    assert [int(split.labels.sum()) for split in data] == [191, 60, 98]
