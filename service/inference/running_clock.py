"""Clock of the running time of the process."""

import asyncio
import time
from typing import Final

_TICK_SECONDS: Final = 0.25
_MAX_STEP_SECONDS: Final = 0.5
"""Seconds of a tick; a busy event loop is late by less, so a longer tick means that the process was stopped."""


class RunningClock:
    """Counts seconds, except while the process is stopped: SIGSTOP, a paused container or machine.

    Attributes:
        seconds: since the start of `run`, to a quarter of a second.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def run(self) -> None:
        """Count until cancelled."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            self.seconds += min(now - before, _MAX_STEP_SECONDS)
            before = now
