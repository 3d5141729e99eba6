"""Stages, progress bars and lines on stderr; stdout has only results."""

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Any, Final, TypeVar
from weakref import WeakSet

from tqdm import tqdm

from service.processors import usable_processors

T = TypeVar("T")
R = TypeVar("R")

_SECONDS_BETWEEN_LINES: Final = 30.0
"""Where stderr is a file, each update of a bar is a line, so there are few."""


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar whose figures wait for its next update instead of printing it at once."""

    def set_postfix(self, ordered_dict: Any = None, refresh: bool | None = False, **figures: Any) -> None:
        super().set_postfix(ordered_dict, refresh=bool(refresh), **figures)

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        """Display the bar, also beneath a line that was written above it; but not before its delay is over.

        tqdm removes a bar at its end only if the delay is over, so the next line would be appended to it.
        """
        if not self.disable and (not self.delay or time() >= self.start_t + self.delay):
            super().refresh(nolock, lock_args)
            self.last_print_t, self.last_print_n = time(), self.n


_open_bars: "WeakSet[tqdm[Any]]" = WeakSet()
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Suppress bars and lines; warnings and errors remain."""
    global _quiet
    _quiet = quiet


def say(line: str) -> None:
    """Print one line above the progress bars."""
    if not _quiet:
        tqdm.write(line, file=sys.stderr)


def warn(line: str) -> None:
    """Print one line above the progress bars, with --quiet too."""
    tqdm.write(f"warning: {line}", file=sys.stderr)


def stage(number: int, total: int, title: str) -> None:
    """Announce a stage of a run: `3/9 the network on all 540 slices`."""
    say(f"{number}/{total} {title}")


def progress(items: Iterable[T], title: str, unit: str, total: int | None = None) -> "tqdm[T]":
    """Wrap `items` in a progress bar with the time left, which disappears at the end.

    Args:
        items: to iterate over.
        title, unit: text of the bar.
        total: number of items, where they have no length.
    """
    terminal = sys.stderr.isatty()
    bar = _Bar(
        items,
        desc=title,
        unit=unit,
        total=total,
        leave=False,
        disable=_quiet,
        mininterval=0.1 if terminal else _SECONDS_BETWEEN_LINES,
        delay=0 if terminal else _SECONDS_BETWEEN_LINES,
    )
    _open_bars.add(bar)
    return bar


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
