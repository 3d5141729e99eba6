"""Clock of the running time of the process."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICK_SECONDS: Final = 0.25
_MAX_STEP_SECONDS: Final = 0.5
"""Seconds of a tick; a busy event loop is late by less, so a longer tick means that the process was stopped."""

_THREADS: Final = Path("/proc/self/task")


class RunningClock:
    """Counts seconds, except while the process is stopped or starved.

    Stopped is SIGSTOP, a paused container or machine. Starved is a thread that could run and waits for a processor: the
    longest wait of a thread is not counted. A thread that waits for anything else is not starved.

    Attributes:
        seconds: since the start of `run`, to a quarter of a second.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def run(self) -> None:
        """Count until cancelled."""
        before, waited_before = time.monotonic(), _waited_seconds()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, waited = time.monotonic(), _waited_seconds()
            starved = max(waited[thread] - waited_before.get(thread, waited[thread]) for thread in waited)
            self.seconds += max(0.0, min(now - before, _MAX_STEP_SECONDS) - starved)
            before, waited_before = now, waited


def _waited_seconds() -> dict[str, float]:
    """Read the time that each thread has waited for a processor; zero if the system does not report it.

    It is the second number of `schedstat`, in nanoseconds (Linux, Documentation/scheduler/sched-stats.rst).
    """
    seconds = {"": 0.0}
    with suppress(OSError):  # not Linux
        for thread in _THREADS.iterdir():
            with suppress(OSError, IndexError):  # it has ended, or the kernel does not count
                seconds[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return seconds
