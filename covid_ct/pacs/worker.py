"""Predicts for the chest CT series of a PACS, one at a time, and stores the results there.

It keeps no state: a series is done when the PACS holds a report that refers to it. What it remembers only saves time.
"""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from covid_ct.errors import ClientError, ProblemError, UnreachableError
from covid_ct.pacs.predictor import SeriesPredictor
from covid_ct.pacs.server import CtSeries, Pacs, PacsAwayError, PacsError, StoredReport
from service.errors import ServiceError

_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 6 * 3600.0
"""Seconds before a failed series is tried again; each pause is twice the last."""

_INTERRUPTIONS: Final = 3
"""Tries of a series during which PACS or service went away, until it counts as failed."""

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
"""Seconds before a server that is away is asked again; each wait is twice the last."""


@dataclass(slots=True)
class _Seen:
    """A series at the last look.

    Attributes:
        instances: how many the server held.
        since: when it got that many.
        next_try: when it may be tried.
        failures: how often it failed.
        interruptions: how often PACS or service went away meanwhile.
    """

    instances: int | None
    since: float
    next_try: float = 0.0
    failures: int = 0
    interruptions: int = 0


class Worker:
    """Works on one PACS.

    Args:
        pacs: with the series.
        predictor: makes their results.
        again: whether a report of another version of the model leaves a series to do.
        settle: seconds for which the number of a series' instances must not have changed: it may still arrive.
        tell: gets a line for each event. It names a series by its UID, and nothing of the patient.
        beat: called at each look, each series and each wait.
        clock, sleep: for tests.
    """

    def __init__(
        self,
        pacs: Pacs,
        predictor: SeriesPredictor,
        *,
        again: bool = False,
        settle: float = 10.0,
        tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        beat: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pacs, self._predictor = pacs, predictor
        self._again, self._settle = again, settle
        self._tell, self._beat, self._clock, self._sleep = tell, beat, clock, sleep
        self._seen: dict[str, _Seen] = {}
        self._done: set[tuple[str, tuple[str, str]]] = set()
        self.answered = self.failed = 0

    def once(self) -> None:
        """Predict for all series that are there and complete."""
        self._wait_for(self._remember)
        self._sleep(self._settle)
        self._wait_for(self._look)

    def forever(self, every: float) -> None:
        """Query for series every so many seconds, until stopped."""
        while True:
            began = self._clock()
            self._wait_for(lambda: self._look(every))
            self._sleep(max(0.0, began + every - self._clock()))

    def _wait_for(self, step: Callable[[], object]) -> None:
        """Repeat a step until PACS and service are there for it."""
        wait = _FIRST_WAIT
        while True:
            self._beat()
            try:
                step()
            except (PacsAwayError, UnreachableError) as error:
                self._tell(f"waiting {wait:g} s: {error}")
                self._sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                return

    def _look(self, at_most: float = float("inf")) -> None:
        """Predict for the series that are ready, the latest first; stop after `at_most` seconds, for newer ones."""
        began, reports = self._clock(), dict[str, list[StoredReport]]()
        model = self._predictor.model()
        for series in self._remember():
            self._beat()
            seen, now = self._seen[series.series_uid], self._clock()
            if now - began > at_most:
                return
            if (series.series_uid, model) in self._done or now < max(seen.since + self._settle, seen.next_try):
                continue
            try:
                if series.study_uid not in reports:
                    reports[series.study_uid] = self._pacs.reports(series.study_uid)
            except PacsError as error:
                self._fail(series, seen, str(error))
                continue
            if self._is_done(series, reports[series.study_uid], model):
                self._done.add((series.series_uid, model))
            else:
                self._answer(series, seen)

    def _remember(self) -> list[CtSeries]:
        """Find the series, and remember since when each has as many instances as now."""
        all_series = self._pacs.chest_series()
        for series in all_series:
            seen = self._seen.get(series.series_uid)
            if seen is None or seen.instances != series.instances:
                self._seen[series.series_uid] = _Seen(series.instances, self._clock())
        return all_series

    def _is_done(self, series: CtSeries, reports: Iterable[StoredReport], model: tuple[str, str]) -> bool:
        name, version = model
        return any(
            series.series_uid in report.series_uids
            and (not self._again or (report.model == name and f"model {version}" in report.versions))
            for report in reports
        )

    def _answer(self, series: CtSeries, seen: _Seen) -> None:
        began = self._clock()
        try:
            results = self._predictor.results(self._pacs.files(series))
            self._pacs.store(results.files)
        except (PacsAwayError, UnreachableError) as error:
            seen.interruptions += 1
            if seen.interruptions < _INTERRUPTIONS:
                raise
            seen.interruptions = 0  # both were there before each try: it is the series
            self._fail(series, seen, str(error))
        except (ServiceError, ProblemError) as error:
            if error.status >= 500:
                self._fail(series, seen, error.detail)
            else:
                seen.next_try = float("inf")  # until it has other instances
                self._tell(f"{series.series_uid}: no result: {error.detail}")
        except (ClientError, OSError) as error:
            self._fail(series, seen, str(error))
        else:
            self.answered += 1
            self._tell(f"{series.series_uid}: {results.summary}, {self._clock() - began:.1f} s")

    def _fail(self, series: CtSeries, seen: _Seen, reason: str) -> None:
        pause = min(_FIRST_PAUSE * 2**seen.failures, _LONGEST_PAUSE)
        seen.failures += 1
        seen.next_try = self._clock() + pause
        self.failed += 1
        self._tell(f"{series.series_uid}: failed, next try in {pause:g} s: {reason}")
