import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from covid_ct.errors import SourceError
from covid_ct.files import sources
from covid_ct.files.sources import SourceFile, list_sources, read_sources, study_sources
from service.imaging.series.archives import ArchiveLimits
from tests.support.processes.client import png
from tests.support.processes.server import ROOT


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def find(paths: list[str]) -> list[SourceFile]:
    """All files of these paths."""
    return [file for _, files in read_sources(list_sources(paths)) for file in files]


def codes(path: Path) -> dict[str, str]:
    """Error code of each file, by the end of its name; empty if it is good."""
    return {
        file.name.rpartition("!")[2]: "" if isinstance(file.data, bytes) else str(file.data.code)
        for file in find([str(path)])
    }


def test_folders_are_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    names = [Path(file.name).relative_to(tmp_path).as_posix() for file in find([str(tmp_path)])]
    assert names == ["a/c.png", "b.png"]


def test_globs_are_matched_and_nothing_found_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(png())
    (tmp_path / "b[1].png").write_bytes(png())
    assert len(find([f"{tmp_path}/**/*.png"])) == 2
    assert [file.named for file in find([f"{tmp_path}/b[1].png"])] == [True]
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


def test_each_file_is_found_once_under_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.png").write_bytes(png())
    paths = ["in/a.png", "in", str(tmp_path / "in" / "a.png"), "./in/*.png", "in/b.png"]
    assert [file.name for file in find(paths)] == ["in/a.png", "in/b.png"]


def test_a_folder_and_a_zip_without_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_bytes(png())
    for path in (tmp_path / "empty", archive(tmp_path / "e.zip", {})):
        assert codes(path) == {str(path): "no_files"}


@pytest.mark.parametrize("path", ["empty", "missing", "*.dcm", "-"])
def test_a_path_without_files_is_no_study(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(SourceError):
        study_sources(path)


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
    assert [file.data for file in find([f"/dev/fd/{read_end}"])] == [png()]
    os.close(read_end)
    monkeypatch.setattr(sources, "LIMITS", ArchiveLimits(max_file_bytes=1000))
    assert codes(Path("/dev/zero")) == {"/dev/zero": "file_too_large"}


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "[" * 300, "~nobody/?", "\udcff.png"])
def test_a_path_that_cannot_be_stops_no_other(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.png").write_bytes(png())
    assert [file.data for file in find([path, "good.png"])][-1] == png()
    assert [isinstance(file.data, bytes) for file in find([path, "good.png"])] == [False, True]


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads every folder")
def test_a_folder_without_permission_is_a_failure_and_stops_no_other(tmp_path: Path) -> None:
    for name in ("read", "locked"):
        (tmp_path / "study" / name).mkdir(parents=True)
        (tmp_path / "study" / name / "1.png").write_bytes(png())
    (tmp_path / "study" / "locked").chmod(0)
    drop = "-dac_override,-dac_read_search"
    as_user = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"] if os.geteuid() == 0 else []
    script = (
        "import sys; from covid_ct.files.sources import list_sources\n"
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
    contents = {str(Path(file.name).relative_to(tmp_path)): file.data for file in find([str(tmp_path / "study")])}
    assert list(contents) == ["study/a/1.png", "study/a/again/1.png", "study/gone.png"]
    assert isinstance(contents["study/gone.png"], SourceError)
