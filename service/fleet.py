"""What several workers share: who of them answers, and how often one had to be replaced."""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ctypes import Array, c_double, c_long

_FRESH_SECONDS: Final = 2.0
"""A worker whose last beat is older hangs or is gone; beats are a quarter of a second apart."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One worker's place among the others; both sides of a fork see the same memory.

    Attributes:
        index: which of them this is, from 0.
        supervisor: process id of the one who starts them.
    """

    index: int
    supervisor: int
    _beats: "Array[c_double]"
    _restarts: "c_long"

    def beat(self, ready: bool) -> None:
        """Say that this worker takes requests now, or that it does not."""
        self._beats[self.index] = time.monotonic() if ready else 0.0

    def is_ready(self) -> bool:
        """Whether this worker has said so lately."""
        return time.monotonic() - self._beats[self.index] < _FRESH_SECONDS

    def are_all_ready(self) -> bool:
        """Whether every worker has said so lately."""
        now = time.monotonic()
        return all(now - beat < _FRESH_SECONDS for beat in self._beats)

    def restarts(self) -> int:
        """Workers that were replaced so far."""
        return self._restarts.value

    def count_restart(self) -> None:
        """One more was replaced; for the supervisor alone, which is the only writer."""
        self._restarts.value += 1

    def reload_everyone(self) -> None:
        """Have the supervisor tell every worker to reload."""
        os.kill(self.supervisor, signal.SIGHUP)


def seats(count: int) -> list[Seat]:
    """Places for `count` workers, made by their supervisor."""
    beats, restarts = RawArray("d", count), RawValue("l", 0)
    return [Seat(index, os.getpid(), beats, restarts) for index in range(count)]
