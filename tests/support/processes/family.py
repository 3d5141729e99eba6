"""Processes that a process has started."""

import contextlib
import time
from collections.abc import Callable

import psutil


def descendants(process_id: int) -> list[psutil.Process]:
    """List its children and theirs, without those that have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(process_id).children(recursive=True) if is_running(child)]
    return []


def workers(process_id: int) -> list[psutil.Process]:
    """List its decoding workers: the children of its fork server."""
    running = []
    for child in psutil.Process(process_id).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            running += [worker for worker in child.children() if is_running(worker)]
    return running


def is_running(process: psutil.Process) -> bool:
    """Whether it has not ended; a process that waits to be reaped has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def used(process: psutil.Process) -> float:
    """Return its processor time in seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until the condition is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not become true in time"
        time.sleep(0.02)
