import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from training.errors import TrainingError
from training.run.atomic_write import write_atomically, write_text
from training.run.run_folder import check_folder, claim_run_folder, delete, locked


@pytest.mark.parametrize("content", ["", "{", "[]", "\0"])
def test_broken_settings_are_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "run-files.txt").write_text("run.json\n")
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"run\.json: .*; --fresh starts over"):
        claim_run_folder(tmp_path, {"seed": 0})
    claim_run_folder(tmp_path, {"seed": 0}, fresh=True)
    claim_run_folder(tmp_path, {"seed": 0})


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, {"seed": 0})
    (tmp_path / ".last.pt.x1y2.partial").write_bytes(b"half a gigabyte")
    claim_run_folder(tmp_path, {"seed": 0})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-files.txt", "run.json"]


def test_fresh_on_the_folder_of_all_runs_deletes_no_run(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    claim_run_folder(tmp_path / "first", {"seed": 0})
    (tmp_path / "thesis.tex").write_text("years of work")
    for check in (partial(check_folder, "--run", tmp_path, fresh=True), partial(delete, tmp_path)):
        with pytest.raises(TrainingError, match=r"it has files but no run\.json, so it is not a run"):
            check()
    assert (tmp_path / "first" / "run.json").exists()
    assert (tmp_path / "thesis.tex").exists()


def test_fresh_deletes_by_the_list_of_the_run_and_says_what_it_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim_run_folder(tmp_path, {"seed": 0})
    (tmp_path / "model").mkdir()
    write_text(tmp_path / "model" / "metrics.json", "{}")
    (tmp_path / "thesis.tex").write_text("years of work")
    claim_run_folder(tmp_path, {"seed": 1}, fresh=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-files.txt", "run.json", "thesis.tex"]
    assert "keeps what the run did not write: thesis.tex" in capsys.readouterr().err


def test_a_list_can_not_delete_outside_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    claim_run_folder(run, {"seed": 0})
    (tmp_path / "thesis.tex").write_text("years of work")
    with (run / "run-files.txt").open("a") as file:
        file.write(f"../thesis.tex\n{tmp_path / 'thesis.tex'}\n")
    delete(run)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("thesis.tex", "not a run; delete it yourself"), ("run.json", r"no run-files\.txt, so it is a run of an older")],
)
def test_a_folder_without_the_list_of_a_run_is_left_alone(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=reason):
        delete(tmp_path)
    assert (tmp_path / name).exists()
    delete(tmp_path / "absent")


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from training.run.run_folder import locked\n"
        "with locked(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(TrainingError, match=f"process {first.pid} on .* is working on this run"), locked(tmp_path):
            pass
        first.kill()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["text", "checkpoint"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    """The kernel refuses to let a file grow, as it does on a full disk."""
    path = tmp_path / "last.pt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(file: BinaryIO) -> object:
        if kind == "text":
            return file.write(b"x" * 9999)
        torch.save(torch.zeros(9999), file)
        return None

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TrainingError, match=r"last\.pt: can't write the file: File too large; with") as raised:
            write_atomically(path, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)
    assert path.read_text() == "old"
    assert [path_.name for path_ in tmp_path.iterdir()] == ["last.pt"]
