"""Reasons why a worker ended early."""

from enum import StrEnum


class Ending(StrEnum):
    """Reason why a worker ended early."""

    TIME = "time_limit"
    MEMORY = "memory_limit"
    CRASH = "crash"
    KILLED = "killed"
    NO_MEMORY = "no_memory"
    STUCK = "stuck"
    CANCELLED = "cancelled"

    @property
    def may_succeed_again(self) -> bool:
        """Whether another worker, with more time, may decode the same file."""
        return self in (Ending.TIME, Ending.KILLED, Ending.STUCK)


class WorkerEndedError(Exception):
    """A worker ended early."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending
