"""Progress and lines on standard error, where a bar and a line never share a row."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from tqdm import tqdm

from service.processors import usable_processors

T = TypeVar("T")
R = TypeVar("R")

_SECONDS_BETWEEN_LINES: Final = 30.0
"""Where stderr is a file, each report of progress is a line, so there are few."""

_STEPS_BEFORE_ESTIMATE: Final = 20
_LONG_SECONDS: Final = 3600.0
"""Work that will take longer says so once, after so many steps."""

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Suppress bars and lines; warnings and errors remain."""
    global _quiet
    _quiet = quiet


def say(line: str) -> None:
    """Print one line above the progress bars."""
    if not _quiet:
        _print(line)


def print_red(line: str) -> None:
    """Print a result on standard output, in red on a terminal."""
    print(f"\033[31m{line}\033[0m" if sys.stdout.isatty() else line)


def warn(line: str) -> None:
    """Print one line above the progress bars, with --quiet too."""
    _print(f"warning: {line}")


class Progress(Generic[T]):
    """Iterates over items and reports how many are done: a bar on a terminal, else a line every half minute."""

    def __init__(self, items: Iterable[T], title: str, unit: str, total: int | None) -> None:
        self._items, self._title, self._total = items, title, total
        self._units = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
        self._figures: dict[str, object] = {}
        self._bar = None
        if sys.stderr.isatty() and not _quiet:
            self._bar = tqdm(total=total, desc=title, unit=unit, leave=False)
            _open_bars.add(self)

    def __iter__(self) -> Iterator[T]:
        started = told = time.monotonic()
        for done, item in enumerate(self._items, 1):
            yield item
            now = time.monotonic()
            if self._bar is not None:
                self._bar.update()
            elif now - told >= _SECONDS_BETWEEN_LINES:
                say(self._line(done, now - started))
                told = now
            if done == _STEPS_BEFORE_ESTIMATE:
                self._announce_long_work((now - started) / done)
        self.close()

    def set_postfix(self, **figures: object) -> None:
        """Show figures, such as losses, with the next report."""
        self._figures = figures
        if self._bar is not None:
            self._bar.set_postfix(self._figures, refresh=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, done: int, seconds: float) -> str:
        of = "" if self._total is None else f" of {self._total}"
        figures = "".join(f", {name} {_rounded(value)}" for name, value in self._figures.items())
        left = "" if self._total is None else f", {_duration((self._total - done) * seconds / done)} left"
        return f"{self._title}: {done}{of} {self._units}{figures}, {_seconds(seconds / done)} each{left}"

    def _announce_long_work(self, seconds_each: float) -> None:
        seconds = seconds_each * (self._total or 0)
        if seconds > _LONG_SECONDS:
            say(
                f"{self._title}: {self._total} {self._units} will take about {_duration(seconds)}; after Ctrl-C, the "
                "same command continues"
            )


_open_bars: "WeakSet[Progress[Any]]" = WeakSet()


def progress(items: Iterable[T], title: str, unit: str, total: int | None = None) -> Progress[T]:
    """Iterate over items with a report of progress; `total` is needed where they have no length."""
    return Progress(items, title, unit, len(items) if total is None and isinstance(items, Sized) else total)


def map_in_threads(function: Callable[[T], R], items: Sequence[T], title: str, unit: str) -> list[R]:
    """Call a function of each item on one thread a processor; results are in the order of the items.

    For decoding and resizing, which run outside Python's lock. The first error in the order of the items is raised, and
    calls that have not begun are dropped.
    """
    with ThreadPoolExecutor(usable_processors()) as threads:
        try:
            return list(progress(threads.map(function, items), title, unit, len(items)))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def close_bars() -> None:
    """Remove all progress bars, so that the next line on stderr starts at its first column."""
    for bar in list(_open_bars):
        bar.close()


def _print(line: str) -> None:
    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def _rounded(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _seconds(seconds: float) -> str:
    """Two digits, but never `1e+02`."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
