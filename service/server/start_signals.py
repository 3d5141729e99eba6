"""Signals that arrive before the server runs, which process 1 of a container would otherwise ignore."""

import os
import signal
from types import FrameType


class StartSignals:
    """Ends the process at SIGTERM and SIGINT, and keeps SIGHUP, until the server handles signals itself.

    Attributes:
        reload_wanted: whether SIGHUP arrived, perhaps after the changed files were read.
    """

    def __init__(self) -> None:
        self.reload_wanted = False

    def install(self) -> None:
        """Handle the signals from now on."""
        signal.signal(signal.SIGHUP, self._keep)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)

    def _keep(self, _number: int, _frame: FrameType | None) -> None:
        self.reload_wanted = True


def _end(_number: int, _frame: FrameType | None) -> None:
    """End at once without an error: there are no requests yet."""
    os._exit(0)
