"""covid-ct pacs between a real PACS and a real service, also when one of them is killed."""

import contextlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from dicomweb_client.web import DICOMwebClient
from highdicom.seg import segread
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from covid_ct.pacs.predictor import remote_predictor
from covid_ct.pacs.server import Pacs
from tests.service.dicom_out.objects import dciodvfy, frame_values
from tests.support.files.studies import SIDE, series
from tests.support.processes.orthanc import Orthanc, orthanc
from tests.support.processes.server import ROOT, START_SECONDS, Server

HEIGHTS = [40.0 + 10 * step for step in range(8)]
SETTLE = ["--settle", "0.5"]
KILLED = -signal.SIGKILL


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path) as running:
        yield running


def study(number: int = 1, **changes: Any) -> list[bytes]:
    """The files of a study with one series; `changes` are elements of its images."""
    return series(
        HEIGHTS,
        uid=f"1.2.840.99.{number}",
        StudyInstanceUID=f"1.2.840.98.{number}",
        FrameOfReferenceUID=f"1.2.840.97.{number}",
        PatientID=f"P{number}",
        PatientName="MARKER^PATIENT",
        **changes,
    )


def store(pacs: Orthanc, files: list[bytes]) -> None:
    """Store files by STOW-RS."""
    with requests.Session() as session:
        DICOMwebClient(pacs.url, session=session).store_instances([dcmread(io.BytesIO(file)) for file in files])


def send(pacs: Orthanc, files: list[bytes], folder: Path) -> None:
    """Send files by C-STORE."""
    folder.mkdir()
    for index, file in enumerate(files):
        (folder / f"{index}.dcm").write_bytes(file)
    pacs.send(folder)


def command(pacs: Orthanc, *options: str) -> list[str]:
    return [sys.executable, "-m", "covid_ct", "pacs", pacs.url, *SETTLE, *options]


def work(pacs: Orthanc, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run the worker to its end."""
    return subprocess.run(command(pacs, *options), capture_output=True, text=True, cwd=ROOT, timeout=START_SECONDS)


@contextlib.contextmanager
def working(pacs: Orthanc, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker that looks every second."""
    process = subprocess.Popen(command(pacs, "--every", "1", *options), stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def objects(pacs: Orthanc, modality: str) -> list[Dataset]:
    return [dcmread(io.BytesIO(file)) for file in pacs.files(modality)]


def series_of(report: Dataset) -> set[str]:
    return {
        str(dataset.SeriesInstanceUID)
        for evidence in report.CurrentRequestedProcedureEvidenceSequence
        for dataset in evidence.ReferencedSeriesSequence
    }


@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_a_series_gets_the_results_of_the_service(way: str, pacs: Orthanc, server: Server, tmp_path: Path) -> None:
    if way == "C-STORE":
        send(pacs, study(), tmp_path / "sent")
    else:
        store(pacs, study())
    done = work(pacs, "--once", "--url", server.url)
    assert done.returncode == 0, done.stderr
    (seg,), (report,) = objects(pacs, "SEG"), objects(pacs, "SR")
    expected = results_of_service(server, study())
    assert {seg.SOPInstanceUID, report.SOPInstanceUID} == expected.keys()
    same = frame_values(segread(io.BytesIO(expected[seg.SOPInstanceUID])))
    stored = frame_values(seg)
    assert stored.keys() == same.keys()
    assert all(np.array_equal(stored[key], same[key]) for key in same)
    assert (seg.PatientID, report.PatientID) == ("P1", "P1")
    assert seg.StudyInstanceUID == report.StudyInstanceUID == "1.2.840.98.1"
    assert "1.2.840.99.1" in series_of(report)
    assert not [line for dataset in (seg, report) for line in dciodvfy(dataset, tmp_path) if line.startswith("Error")]
    assert "MARKER" not in done.stderr + done.stdout


def results_of_service(server: Server, files: list[bytes]) -> dict[str, bytes]:
    """SEG and SR of the service by their identifiers."""
    with remote_predictor(server.url) as predictor:
        results = predictor.results(files)
    return {str(dcmread(io.BytesIO(file)).SOPInstanceUID): file for file in results.files}


def test_compressed_files_come_as_they_are_stored(pacs: Orthanc) -> None:
    originals = [dcmread(io.BytesIO(file)) for file in study()]
    for dataset in originals:
        dataset.compress(RLELossless, generate_instance_uid=False)
    with requests.Session() as session:
        DICOMwebClient(pacs.url, session=session).store_instances(originals)
    with Pacs(pacs.url) as server:
        (stored,) = server.chest_series()
        files = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, map(io.BytesIO, server.files(stored)))}
    assert stored.instances == len(files) == len(originals)
    for original in originals:
        dataset = files[original.SOPInstanceUID]
        assert dataset.file_meta.TransferSyntaxUID == RLELossless
        assert dataset.PixelData == original.PixelData


def test_a_second_run_finds_nothing_to_do(pacs: Orthanc, server: Server) -> None:
    store(pacs, study())
    first, second = (work(pacs, "--once", "--url", server.url) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert "1.2.840.99.1" in first.stderr
    assert second.stderr == ""
    assert (len(pacs.files("SEG")), len(pacs.files("SR"))) == (1, 1)


def test_the_model_of_this_machine_stores_the_same_results(pacs: Orthanc, server: Server, models: Path) -> None:
    store(pacs, study())
    done = work(pacs, "--once", "--models", str(models), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    expected = results_of_service(server, study())
    stored = {str(dataset.SOPInstanceUID): dataset for modality in ("SEG", "SR") for dataset in objects(pacs, modality)}
    assert stored.keys() == expected.keys()
    segs = [segread(io.BytesIO(data)) for uid, data in expected.items() if stored[uid].Modality == "SEG"]
    assert segs[0].PixelData == next(dataset for dataset in stored.values() if dataset.Modality == "SEG").PixelData


def test_a_worker_that_is_killed_loses_nothing_and_the_next_one_doubles_nothing(pacs: Orthanc, server: Server) -> None:
    numbers = range(1, 4)
    for number in numbers:
        store(pacs, study(number))
    for _ in numbers:
        with working(pacs, "--url", server.url) as process:
            before = len(pacs.files("SEG"))
            until(lambda: len(pacs.files("SEG")) > before)  # noqa: B023 - read at once
            process.kill()
            assert process.wait() == KILLED
    assert work(pacs, "--once", "--url", server.url).returncode == 0
    reports = objects(pacs, "SR")
    assert len(reports) == len(objects(pacs, "SEG")) == len(numbers)
    assert {f"1.2.840.99.{number}" for number in numbers} <= set().union(*map(series_of, reports))


def test_two_workers_at_once_store_each_result_once(pacs: Orthanc, server: Server) -> None:
    for number in (1, 2, 3):
        store(pacs, study(number))
    with working(pacs, "--url", server.url), working(pacs, "--url", server.url):
        until(lambda: len(pacs.files("SR")) == 3)
    assert work(pacs, "--once", "--url", server.url).returncode == 0
    assert (len(pacs.files("SEG")), len(pacs.files("SR"))) == (3, 3)


def test_a_pacs_that_is_killed_is_waited_for(pacs: Orthanc, server: Server) -> None:
    for number in (1, 2, 3):
        store(pacs, study(number))
    with working(pacs, "--url", server.url) as process:
        until(lambda: len(pacs.files("SR")) > 0)
        pacs.kill()
        assert process.stderr is not None
        until(lambda: "waiting" in process.stderr.readline())  # type: ignore[union-attr]
        assert process.poll() is None
        pacs.start()
        until(lambda: len(pacs.files("SR")) == 3)
    assert (len(pacs.files("SEG")), len(pacs.files("SR"))) == (3, 3)


def test_a_service_that_is_away_is_waited_for(pacs: Orthanc, server: Server) -> None:
    store(pacs, study())
    with working(pacs, "--url", "http://127.0.0.1:9") as process:
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
        assert process.poll() is None
    assert pacs.files("SR") == []


def test_a_series_without_lungs_is_told_and_stays_without_results(pacs: Orthanc, server: Server) -> None:
    store(pacs, study(7, PixelData=bytes(2 * SIDE * SIDE), RescaleIntercept=-4000))
    done = work(pacs, "--once", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "1.2.840.99.7: no result" in done.stderr
    assert pacs.files("SR") == []
