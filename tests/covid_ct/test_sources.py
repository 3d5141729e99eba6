import gzip
import io
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from covid_ct import sources
from covid_ct.errors import SourceError
from covid_ct.sources import SourceFile, SourceSlice, list_sources, read_sources, slices_of
from service.errors import ServiceError, UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import Slice, decode
from service.imaging.series.archives import ArchiveLimits
from service.imaging.window import LUNG, Window
from tests.support.files.dicoms import ct, ct_dataset, phantom, written
from tests.support.processes.client import png
from tests.support.processes.server import ROOT


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


@cache
def decoders() -> BlockingCage:
    """One for all tests of this file; it ends with their process."""
    return BlockingCage()


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    decoders().close()


def sliced(data: bytes, name: str, window: Window = LUNG) -> Iterator[SourceSlice]:
    return slices_of(data, name, decoders(), window)


def image_of(found: SourceSlice) -> Slice:
    """The slice that was decoded here."""
    assert isinstance(found.image, np.ndarray)
    return found.image


def find(paths: list[str]) -> list[SourceFile]:
    """All files of these paths."""
    return [file for _, files in read_sources(list_sources(paths)) for file in files]


def codes(path: Path) -> dict[str, str]:
    """Error code of each file, by the end of its name; empty if it is good."""
    return {
        found.name.rpartition("!")[2]: "" if isinstance(found.data, bytes) else str(found.data.code)
        for found in find([str(path)])
    }


def test_folders_are_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    names = [Path(found.name).relative_to(tmp_path).as_posix() for found in find([str(tmp_path)])]
    assert names == ["a/c.png", "b.png"]


def test_globs_are_matched_and_nothing_found_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(png())
    (tmp_path / "b[1].png").write_bytes(png())
    assert len(find([f"{tmp_path}/**/*.png"])) == 2
    assert [found.named for found in find([f"{tmp_path}/b[1].png"])] == [True]
    (missing,) = find([f"{tmp_path}/*.dcm"])
    assert isinstance(missing.data, SourceError)
    assert missing.data.code == "not_found"


def test_a_zip_gives_its_files_and_nothing_that_leads_out_of_it(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.zip", {"x.png": png()})
    path = archive(
        tmp_path / "a.zip",
        {
            "ok/1.png": png(),
            "__MACOSX/1.png": b"",
            "../up.png": png(),
            "/root.png": png(),
            "c:\\evil.png": png(),
            "inner.zip": inner.read_bytes(),
        },
    )
    assert codes(path) == {
        "ok/1.png": "",
        "../up.png": "unsafe_name",
        "//root.png": "unsafe_name",
        "c:/evil.png": "unsafe_name",
        "inner.zip": "nested_archive",
    }


def test_zip_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "bomb.zip", {"zeros": bytes(3_000_000), "small.png": png()})
    for limits, expected in (
        (ArchiveLimits(max_file_bytes=1_000_000), {"zeros": "limit_exceeded", "small.png": ""}),
        (ArchiveLimits(max_bytes=2_000_000), {str(path): "archive_too_large"}),
        (ArchiveLimits(max_files=1), {str(path): "archive_too_large"}),
    ):
        monkeypatch.setattr(sources, "LIMITS", limits)
        assert codes(path) == expected


@pytest.mark.parametrize("cut", [50, 1000])
def test_a_damaged_zip_is_one_failure(tmp_path: Path, cut: int) -> None:
    path = archive(tmp_path / "a.zip", {f"{n}.png": png(n) for n in range(20)})
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(codes(path).values()) == {"damaged_archive"}


def test_a_damaged_member_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"1.png": png(1), "2.png": png(2)})
    data = bytearray(path.read_bytes())
    at = data.index(b"1.png") + 15
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    assert codes(path) == {"1.png": "damaged_archive", "2.png": ""}


def nifti(hounsfield: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    image = nibabel.Nifti1Image(hounsfield, np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine)
    return bytes(image.to_bytes())


VOLUME = np.stack([phantom(32).astype(np.int16) - 1024 + shift for shift in (0, 50, 100)], axis=-1)
"""(x, y, z) as a CT series is stacked: x to the left, y to the back."""


@pytest.mark.parametrize("packed", [False, True])
def test_nifti_slices_are_those_of_the_dicom_series(packed: bool) -> None:
    """NIfTI's x is DICOM's columns and its y the rows, with an affine that says that they run left and back."""
    data = nifti(VOLUME.transpose(1, 0, 2))
    name = "ct.nii.gz" if packed else "ct.nii"
    slices = list(sliced(gzip.compress(data) if packed else data, name))
    assert [each.name for each in slices] == [f"{name}#0", f"{name}#1", f"{name}#2"]
    for index, each in enumerate(slices):
        np.testing.assert_array_equal(image_of(each), decode(ct(VOLUME[..., index], RescaleIntercept=0)))


def test_nifti_that_is_no_volume_or_damaged_is_refused() -> None:
    data = nifti(VOLUME)
    for name, bad, code in (
        ("a.nii", data[: len(data) // 2], "damaged_image"),
        ("a.nii.gz", gzip.compress(data)[:-100], "damaged_image"),
        ("a.nii.gz", gzip.compress(b"no volume"), "damaged_image"),
    ):
        with pytest.raises(ServiceError) as caught:
            list(sliced(bad, name))
        assert caught.value.code == code


def test_a_packed_volume_is_judged_by_its_header_and_unpacked_no_further() -> None:
    """int8 zeros with a slope became 16 times as much memory before their size was judged."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((512, 512, 4000))
    header.set_data_dtype(np.int8)
    header["vox_offset"] = 352
    packed = gzip.compress(header.binaryblock + bytes(4) + bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError):
            next(sliced(packed, "a.nii.gz"))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        header.set_data_shape((512, 512, 4))
        packed = gzip.compress(header.binaryblock + bytes(4) + bytes(50_000_000))
        tracemalloc.reset_peak()
        assert len(list(sliced(packed, "a.nii.gz"))) == 4
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_trailing_axes_of_one_are_dropped_and_gzip_is_known_by_its_bytes() -> None:
    expected = [image_of(each) for each in sliced(nifti(VOLUME), "a.nii")]
    for data, name in (
        (nifti(VOLUME[..., None]), "a.nii"),
        (nifti(VOLUME[..., None, None]), "a.nii"),
        (gzip.compress(nifti(VOLUME)), "a.nii"),
        (gzip.compress(nifti(VOLUME)), "volume"),
    ):
        np.testing.assert_array_equal([image_of(each) for each in sliced(data, name)], expected)


def test_infinite_voxels_are_air() -> None:
    volume = VOLUME.astype(np.float32)
    volume[:5] = np.inf
    air = VOLUME.copy()
    air[:5] = -1024
    found = [image_of(each) for each in sliced(nifti(volume), "a.nii")]
    np.testing.assert_array_equal(found, [image_of(each) for each in sliced(nifti(air), "a.nii")])


def test_dicom_goes_out_whole_unless_it_has_frames_or_another_window() -> None:
    single, several = ct(phantom()), ct(np.stack([phantom()] * 2))
    assert list(sliced(single, "a")) == [SourceSlice("a", single, LUNG)]
    assert [each.name for each in sliced(several, "a")] == ["a#0", "a#1"]
    (narrow,) = sliced(single, "a", Window(40, 400))
    assert (narrow.name, narrow.window) == ("a", Window(40, 400))
    np.testing.assert_array_equal(image_of(narrow), decode(single, window=Window(40, 400)))
    with pytest.raises(UnusableImageError, match="MR"):
        list(sliced(ct(phantom(), Modality="MR"), "a"))


def test_an_image_is_left_to_whoever_decodes_it() -> None:
    assert list(sliced(b"anything", "a.png")) == [SourceSlice("a.png", b"anything", None)]


@pytest.mark.parametrize(
    "elements", [pytest.param({}, id="rescale"), pytest.param({"RescaleIntercept": 0}, id="Hounsfield units as stored")]
)
def test_hounsfield_units_have_the_window_that_was_asked_for(elements: dict[str, Any]) -> None:
    (found,) = sliced(ct(phantom(), **elements), "a.dcm", Window(40, 400))
    assert found.window == Window(40, 400)


def test_a_ct_slice_without_hounsfield_units_is_refused() -> None:
    with pytest.raises(UnusableImageError, match="no RescaleSlope"):
        list(sliced(ct(phantom(), RescaleIntercept=None, RescaleSlope=None), "a.dcm", Window(40, 400)))


def test_a_picture_in_a_dicom_file_has_no_window() -> None:
    for pixels in (np.full((32, 32), 9, np.uint8), np.zeros((32, 32, 3), np.uint8)):
        (found,) = sliced(ct(pixels), "a.dcm", Window(40, 400))
        assert found.window is None


def test_a_damaged_frame_is_an_error_in_its_place() -> None:
    whole = bytes(imagecodecs.jpegls_encode(phantom()))
    dataset = ct_dataset(np.stack([phantom()] * 3), JPEGLSLossless)
    dataset.PixelData = encapsulate([whole, whole[:200], whole])
    dataset["PixelData"].is_undefined_length = True
    found = list(sliced(written(dataset), "a"))
    assert [each.name for each in found] == ["a#0", "a#1", "a#2"]
    assert [isinstance(each.image, UnusableImageError) for each in found] == [False, True, False]


def test_each_file_is_found_once_under_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.png").write_bytes(png())
    paths = ["in/a.png", "in", str(tmp_path / "in" / "a.png"), "./in/*.png", "in/b.png"]
    assert [found.name for found in find(paths)] == ["in/a.png", "in/b.png"]


def test_a_folder_and_a_zip_without_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_bytes(png())
    for path in (tmp_path / "empty", archive(tmp_path / "e.zip", {})):
        assert codes(path) == {str(path): "no_files"}


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_dash_is_standard_input_once_and_may_be_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, png())
    assert find(["-", "-"]) == [SourceFile("-", png(), named=True)]
    given(monkeypatch, archive(tmp_path / "a.zip", {"x.png": png()}).read_bytes())
    assert find(["-"]) == [SourceFile("-!x.png", png(), named=False)]


def test_a_pipe_and_a_device_without_end_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, png())
    os.close(write_end)
    assert [found.data for found in find([f"/dev/fd/{read_end}"])] == [png()]
    os.close(read_end)
    monkeypatch.setattr(sources, "LIMITS", ArchiveLimits(max_file_bytes=1000))
    assert codes(Path("/dev/zero")) == {"/dev/zero": "file_too_large"}


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "[" * 300, "~nobody/?", "\udcff.png"])
def test_a_path_that_cannot_be_stops_no_other(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.png").write_bytes(png())
    assert [found.data for found in find([path, "good.png"])][-1] == png()
    assert [isinstance(found.data, bytes) for found in find([path, "good.png"])] == [False, True]


def test_zips_of_windows_have_folders_with_backslashes(tmp_path: Path) -> None:
    path = tmp_path / "win.zip"
    with zipfile.ZipFile(path, "w") as archive_:
        for name, data in (("DICOM\\", b""), ("DICOM\\P1\\", b""), ("D2", b""), ("DICOM\\P1\\1.png", png())):
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, 0x20 if data else 0x10
            archive_.writestr(info, data)
    assert codes(path) == {"DICOM/P1/1.png": ""}


DISC_INDEX = (
    bytes(128) + b"DICM" + b"\2\0\2\0UI\x14\x001.2.840.10008.1.3.10" + b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
)


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR;1", "DIRFILE"])
def test_the_index_of_a_disc_is_known_by_its_content(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        list(sliced(DISC_INDEX, name))
    assert caught.value.code == "disc_index"


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads every folder")
def test_a_folder_without_permission_is_a_failure_and_stops_no_other(tmp_path: Path) -> None:
    for name in ("read", "locked"):
        (tmp_path / "study" / name).mkdir(parents=True)
        (tmp_path / "study" / name / "1.png").write_bytes(png())
    (tmp_path / "study" / "locked").chmod(0)
    drop = "-dac_override,-dac_read_search"
    as_user = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"] if os.geteuid() == 0 else []
    script = (
        "import sys; from covid_ct.sources import list_sources\n"
        "for source in list_sources(sys.argv[1:]): print(source.path, source.problem)"
    )
    for path, rows in ((tmp_path / "study", 2), (tmp_path / "study" / "locked", 1)):
        command = [*as_user, sys.executable, "-c", script, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == rows
        assert f"{tmp_path}/study/locked ('unreadable_folder', \"It can't be read: Permission denied.\")" in done.stdout
    (tmp_path / "study" / "locked").chmod(0o755)


def test_links_to_folders_are_followed_once_and_never_round(tmp_path: Path) -> None:
    for name in ("study/a", "linked"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(png())
    for link in ("more", "again"):
        (tmp_path / "study" / "a" / link).symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "back").symlink_to(tmp_path / "study")
    (tmp_path / "study" / "up").symlink_to("..")
    (tmp_path / "study" / "gone.png").symlink_to("nowhere")
    found = {str(Path(file.name).relative_to(tmp_path)): file.data for file in find([str(tmp_path / "study")])}
    assert list(found) == ["study/a/1.png", "study/a/again/1.png", "study/gone.png"]
    assert isinstance(found["study/gone.png"], SourceError)
