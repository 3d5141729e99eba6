from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from covid_ct.errors import ClientError, ProblemError, UnreachableError
from covid_ct.pacs.predictor import Results
from covid_ct.pacs.server import CtSeries, PacsAwayError, PacsError, StoredReport
from covid_ct.pacs.worker import Worker
from service.errors import InferenceError, UnusableImageError

CHEST = CtSeries("1.2", "1.2.1", 2, "20261130")
OTHER = CtSeries("1.3", "1.3.1", 2, "20261129")


class Time:
    """A clock that moves when somebody sleeps; it stops the worker after so many seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.end = float("inf")

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.end:
            raise KeyboardInterrupt


class FakePacs:
    """Holds series and reports in memory; `away` and `broken` are errors to raise once."""

    def __init__(self, *series: CtSeries) -> None:
        self.series = list(series)
        self.stored: list[StoredReport] = []
        self.errors: list[Exception] = []

    def chest_series(self) -> list[CtSeries]:
        if self.errors:
            raise self.errors.pop()
        return list(self.series)

    def reports(self, study_uid: str) -> list[StoredReport]:
        return list(self.stored)

    def files(self, series: CtSeries) -> Iterator[bytes]:
        yield series.series_uid.encode()

    def store(self, files: Iterable[bytes]) -> None:
        for file in files:
            name, version, uid = file.decode().split()
            self.stored.append(StoredReport(name, (f"model {version}",), frozenset([uid])))


class FakePredictor:
    """Predicts with the model's name, its version and the series, or raises what it is given for a series."""

    def __init__(self, version: str = "1.0.0") -> None:
        self.version = version
        self.away = 0
        self.errors: dict[str, list[Exception]] = {}
        self.asked: list[str] = []

    def model(self) -> tuple[str, str]:
        if self.away:
            self.away -= 1
            raise UnreachableError("no response from the service")
        return "covid-ct", self.version

    def results(self, files: Iterable[bytes]) -> Results:
        (uid,) = [file.decode() for file in files]
        self.asked.append(uid)
        if self.errors.get(uid):
            raise self.errors[uid].pop(0)
        return Results([f"covid-ct {self.version} {uid}".encode()], "COVID 0.81")


def working(pacs: Any, predictor: Any, **options: Any) -> tuple[Worker, Time, list[str]]:
    time, lines = Time(), list[str]()
    return Worker(pacs, predictor, tell=lines.append, clock=time, sleep=time.sleep, **options), time, lines


def run(worker: Worker, time: Time, seconds: float, every: float = 30.0) -> None:
    time.end = time.now + seconds
    with pytest.raises(KeyboardInterrupt):
        worker.forever(every)


def test_each_series_gets_one_report_the_latest_first() -> None:
    pacs, predictor = FakePacs(CHEST, OTHER), FakePredictor()
    worker, _, lines = working(pacs, predictor)
    worker.once()
    assert predictor.asked == ["1.2.1", "1.3.1"]
    assert (worker.answered, worker.failed) == (2, 0)
    assert lines[0].startswith("1.2.1: COVID 0.81")
    working(pacs, predictor)[0].once()
    assert predictor.asked == ["1.2.1", "1.3.1"]


def test_each_look_each_series_and_each_wait_is_a_beat() -> None:
    pacs, beats = FakePacs(CHEST, OTHER), list[None]()
    pacs.errors = [PacsAwayError("no response from the PACS")]
    worker, _, _ = working(pacs, FakePredictor(), beat=lambda: beats.append(None))
    worker.once()
    assert len(beats) == 5


def test_a_new_version_of_the_model_answers_only_if_asked_and_then_once() -> None:
    pacs = FakePacs(CHEST)
    working(pacs, FakePredictor("1.0.0"))[0].once()
    newer = FakePredictor("2.0.0")
    working(pacs, newer)[0].once()
    assert newer.asked == []
    for _ in range(2):
        working(pacs, newer, again=True)[0].once()
    assert newer.asked == ["1.2.1"]


def test_a_series_that_still_arrives_is_left_until_it_is_whole() -> None:
    pacs, predictor = FakePacs(CHEST), FakePredictor()
    worker, time, _ = working(pacs, predictor, settle=45.0)
    run(worker, time, 40)
    assert predictor.asked == []
    pacs.series = [replace(CHEST, instances=3)]
    run(worker, time, 40)
    assert predictor.asked == []
    run(worker, time, 60)
    assert predictor.asked == ["1.2.1"]


def test_a_failing_series_is_told_skipped_and_tried_again_with_growing_pauses() -> None:
    pacs, predictor = FakePacs(CHEST, OTHER), FakePredictor()
    predictor.errors["1.2.1"] = [InferenceError("broken"), PacsError("refused"), ClientError("odd")]
    worker, time, lines = working(pacs, predictor)
    run(worker, time, 10 + 60 + 120 + 240 + 4 * 30)
    assert predictor.asked == ["1.2.1", "1.3.1", "1.2.1", "1.2.1", "1.2.1"]
    pauses = [line.split("next try in ")[1].split(" s")[0] for line in lines if "failed" in line]
    assert pauses == ["60", "120", "240"]
    assert {uid for report in pacs.stored for uid in report.series_uids} == {"1.2.1", "1.3.1"}


@pytest.mark.parametrize("error", [UnusableImageError("no lungs"), ProblemError(422, "no_lungs", "no lungs")])
def test_a_series_that_cannot_be_answered_is_told_once_and_no_failure(error: Exception) -> None:
    pacs, predictor = FakePacs(CHEST), FakePredictor()
    predictor.errors["1.2.1"] = [error]
    worker, time, lines = working(pacs, predictor)
    run(worker, time, 3600)
    assert predictor.asked == ["1.2.1"]
    assert lines == ["1.2.1: no result: no lungs"]
    assert worker.failed == 0
    pacs.series = [replace(CHEST, instances=9)]
    run(worker, time, 120)
    assert predictor.asked == ["1.2.1", "1.2.1"]


def away_pacs(pacs: FakePacs, predictor: FakePredictor) -> None:
    pacs.errors = [PacsAwayError("no response from the PACS")] * 3


def away_service(pacs: FakePacs, predictor: FakePredictor) -> None:
    predictor.away = 3


@pytest.mark.parametrize("make_away", [away_pacs, away_service])
def test_a_server_that_is_away_is_waited_for_and_no_series_counts_as_failed(
    make_away: Callable[[FakePacs, FakePredictor], None],
) -> None:
    pacs, predictor = FakePacs(CHEST), FakePredictor()
    make_away(pacs, predictor)
    worker, _, lines = working(pacs, predictor)
    worker.once()
    assert [line.split(":")[0] for line in lines if line.startswith("waiting")] == [
        "waiting 1 s",
        "waiting 2 s",
        "waiting 4 s",
    ]
    assert (worker.answered, worker.failed) == (1, 0)


def test_a_service_that_ends_in_the_middle_of_a_series_is_waited_for_and_the_series_answered() -> None:
    pacs, predictor = FakePacs(CHEST), FakePredictor()
    predictor.errors["1.2.1"] = [UnreachableError("gone")] * 2
    worker, _, _ = working(pacs, predictor)
    worker.once()
    assert (worker.answered, worker.failed) == (1, 0)


def test_a_series_that_ends_the_service_each_time_does_not_hold_up_the_others() -> None:
    pacs, predictor = FakePacs(CHEST, OTHER), FakePredictor()
    predictor.errors["1.2.1"] = [UnreachableError("gone")] * 9
    worker, time, lines = working(pacs, predictor)
    run(worker, time, 120)
    assert [uid for report in pacs.stored for uid in report.series_uids] == ["1.3.1"]
    assert any(line.startswith("1.2.1: failed, next try in 60 s") for line in lines)


def test_a_service_with_a_new_model_answers_again_if_asked() -> None:
    pacs, predictor = FakePacs(CHEST), FakePredictor()
    worker, time, _ = working(pacs, predictor, again=True)
    run(worker, time, 120)
    predictor.version = "2.0.0"
    run(worker, time, 120)
    assert predictor.asked == ["1.2.1", "1.2.1"]


def test_a_study_whose_reports_cannot_be_read_does_not_hold_up_the_others() -> None:
    pacs, predictor = FakePacs(CHEST, OTHER), FakePredictor()
    reports = pacs.reports

    def failing(study_uid: str) -> list[StoredReport]:
        if study_uid == "1.2":
            raise PacsError("the PACS responded with status 500")
        return reports(study_uid)

    pacs.reports = failing  # type: ignore[method-assign]
    worker, _, lines = working(pacs, predictor)
    worker.once()
    assert predictor.asked == ["1.3.1"]
    assert lines[0].startswith("1.2.1: failed")


def test_a_new_study_is_answered_before_an_old_backlog() -> None:
    oldest = CtSeries("1.4", "1.4.1", 2, "20260101")
    pacs, predictor = FakePacs(CHEST, OTHER, oldest), FakePredictor()
    worker, time, _ = working(pacs, predictor)
    newest = CtSeries("1.9", "1.9.1", 2, "20261201")
    results = predictor.results

    def slow(files: Iterable[bytes]) -> Results:
        time.now += 40
        pacs.series = [newest, CHEST, OTHER, oldest]
        return results(files)

    predictor.results = slow  # type: ignore[method-assign]
    run(worker, time, 300)
    assert predictor.asked == ["1.2.1", "1.3.1", "1.9.1", "1.4.1"]
