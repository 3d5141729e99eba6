"""`covid-ct predict --engine ray` with a cluster in this process; tests/soak/test_archive.py starts Ray itself."""

import csv
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from covid_ct.__main__ import main
from covid_ct.archive import Progress, predict_archive, run
from covid_ct.archive.parts import MANIFEST
from covid_ct.archive.workers import Chunk, ChunkRows, WorkerSettings, rows_of_chunk
from covid_ct.engines import LocalEngine
from covid_ct.errors import ClientError
from service.imaging.window import Window
from tests.support.files.archives import write_mixed
from tests.support.processes.client import png


@dataclass
class Here:
    """A cluster of this process: works on the last chunk first, pickled, and is interrupted after `limit` of them."""

    limit: int = 1000
    size: int = 1

    def rows(self, chunks: Sequence[Chunk], settings: WorkerSettings) -> Iterator[ChunkRows]:
        with LocalEngine(settings.models, settings.device, 1) as engine:
            for number, chunk in enumerate(reversed(chunks)):
                if number == self.limit:
                    raise KeyboardInterrupt
                rows = rows_of_chunk(pickle.loads(pickle.dumps(chunk)), engine, settings.window)  # noqa: S301 - our own
                yield pickle.loads(pickle.dumps(rows))  # noqa: S301 - our own


def predicted(paths: list[str], output: Path, models: Path, limit: int = 1000, **options: object) -> Progress:
    @contextmanager
    def cluster(address: str | None) -> Iterator[Here]:
        yield Here(limit)

    return predict_archive(paths, output, models=models, cluster=cluster, **options)  # type: ignore[arg-type]


def text_of(output: Path) -> str:
    """The rows of all parts, by name, below one header."""
    parts = [path.read_text().splitlines(keepends=True) for path in sorted(output.glob("part-*.csv"))]
    return "".join([parts[0][0], *(line for part in parts for line in part[1:])])


def names(output: Path) -> list[str]:
    return [row["path"] for row in csv.DictReader(text_of(output).splitlines())]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 32 files, four of them a wave."""
    monkeypatch.setattr(run, "PART_FILES", 32)
    monkeypatch.setattr(run, "_LARGEST_PART", 32)
    monkeypatch.setattr(run, "_WAVE_PARTS", 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 160 slices of all kinds, with damaged files and zips."""
    return write_mixed(tmp_path_factory.mktemp("archive"), 120)


@pytest.fixture(scope="module")
def local(archive: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Output of the local engine for it."""
    output = tmp_path_factory.mktemp("local") / "rows.csv"
    assert main(["predict", str(archive), "--models", str(models), "--output", str(output)]) == 1
    return output.read_text()


def test_the_parts_are_the_rows_of_the_local_engine_byte_for_byte(
    archive: Path, local: str, models: Path, tmp_path: Path
) -> None:
    summary = predicted([str(archive)], tmp_path / "out", models)
    assert text_of(tmp_path / "out") == local
    assert len(list((tmp_path / "out").glob("part-*"))) > 3
    assert summary.answered + summary.failed == local.count("\n") - 1
    assert {"damaged_image", "damaged_archive", "unsafe_name"} <= {
        row["error"] for row in csv.DictReader(local.splitlines())
    }
    assert summary.skipped == 1
    assert summary.files == summary.total


def test_an_interrupted_run_continues_and_answers_nothing_twice(
    archive: Path, local: str, models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predicted([str(archive)], output, models, limit=10)
    before = names(output)
    assert len(before) > 70
    with (output / MANIFEST).open("a") as file:
        file.write('{"name": "part-0000')  # the process was killed here
    (output / "part-000099.csv").write_text("without its line in the manifest")
    summary = predicted([str(archive)], output, models)
    assert sorted(text_of(output).splitlines()) == sorted(local.splitlines())
    assert 0 < summary.kept < len(before)  # without those that failed
    assert summary.kept + summary.answered + summary.failed == local.count("\n") - 1


def test_a_file_that_failed_or_changed_is_answered_again(models: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(png(100))
    (folder / "b").write_bytes(png(100)[:50])
    assert predicted([str(folder)], output, models).failed == 1
    (folder / "b").write_bytes(png(120))
    second = predicted([str(folder)], output, models)
    assert (second.answered, second.failed, second.kept) == (1, 0, 2)
    assert sorted(Path(name).name for name in names(output)) == ["a", "b", "c"]
    (folder / "c").write_bytes(png(200))
    third = predicted([str(folder)], output, models)
    assert (third.answered, third.kept) == (1, 3)
    assert predicted([str(folder)], output, models).kept == 4


def test_a_file_that_is_named_twice_is_one_row(models: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(100))
    paths = [str(tmp_path / "in"), f"{tmp_path}/in/*.png", f"{tmp_path}/in/*.dcm"]
    predicted(paths, tmp_path / "out", models)
    rows = list(csv.DictReader(text_of(tmp_path / "out").splitlines()))
    assert [(Path(row["path"]).name, row["error"]) for row in rows] == [("a.png", ""), ("*.dcm", "not_found")]


def test_names_that_are_not_unicode_and_paths_to_nothing_are_rows(models: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"\xff.png")).write_bytes(png(100))
    (tmp_path / "empty").mkdir()
    predicted([str(tmp_path / "in"), str(tmp_path / "empty"), f"{tmp_path}/*.dcm"], tmp_path / "out", models)
    errors = [(Path(row["path"]).name, row["error"]) for row in csv.DictReader(text_of(tmp_path / "out").splitlines())]
    assert errors == [(r"\udcff.png", ""), ("empty", "no_files"), ("*.dcm", "not_found")]


def test_another_window_or_model_is_refused(models: Path, classifier_models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(100))
    paths, output = [str(tmp_path / "a.png")], tmp_path / "out"
    predicted(paths, output, models)
    with pytest.raises(ClientError, match="choose another --output"):
        predicted(paths, output, models, window=Window(40, 400))
    with pytest.raises(ClientError, match="choose another --output"):
        predicted(paths, output, models, form="parquet")
    (tmp_path / "b.png").write_bytes(png(110))
    with pytest.raises(ClientError, match=r"has predictions of model tiny .* and these would be of"):
        predicted([*paths, str(tmp_path / "b.png")], output, classifier_models)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    with pytest.raises(ClientError, match="has files but no manifest"):
        predicted(paths, tmp_path / "mine", models)


def test_parquet_has_the_same_rows(archive: Path, local: str, models: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")
    predicted([str(archive)], tmp_path / "out", models, form="parquet")
    rows = [row for path in sorted((tmp_path / "out").glob("part-*")) for row in parquet.read_table(path).to_pylist()]
    expected = list(csv.DictReader(local.splitlines()))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == expected
    again = predicted([str(archive)], tmp_path / "out", models, form="parquet")
    assert again.kept + again.answered + again.failed == len(expected)


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_uri_of_pyarrow_or_fsspec_gives_the_rows_of_the_path(
    scheme: str, archive: Path, local: str, models: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra ray")
    predicted([f"{scheme}://{archive}"], tmp_path / "out", models)
    assert text_of(tmp_path / "out").replace(f"{scheme}://", "") == local
    with pytest.raises(ClientError, match="there is no such file"):
        predicted([f"{scheme}://{tmp_path}/nowhere"], tmp_path / "other", models)


def test_a_key_in_a_uri_is_refused_because_rows_would_show_it(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra ray")
    with pytest.raises(ClientError, match="give keys in the environment") as caught:
        predicted(["s3://name:secret@bucket/x"], tmp_path / "out", models)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ([], "--engine ray needs --output FOLDER"),
        (["--output", "o", "--url", "http://x"], "leave out --url"),
        (["--output", "o", "--format", "jsonl"], "csv or parquet"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    options: list[str], telling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "a.png", "--engine", "ray", *options]) == 2
    error = capsys.readouterr().err
    assert telling in error
    assert error.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").write_bytes(png())
    assert main(["predict", str(tmp_path / "a.png"), "--engine", "ray", "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: --engine ray needs Ray: in a clone, pip install '.[ray]'\n"
