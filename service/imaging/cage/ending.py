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
