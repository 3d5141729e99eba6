"""Several workers on one port: starts them, replaces those that die, passes signals on, and waits for their end."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from service.fleet import Seat, seats
from service.settings import Settings

METRICS_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client looks here, when it is imported, for the folder whose files several processes count in."""

_POLL_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 15.0
"""More than a worker needs after its drain and its grace."""

_STEADY_SECONDS: Final = 10.0
"""A worker that lived shorter than this is replaced after a pause that doubles each time."""

_FIRST_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 30.0

_log = logging.getLogger("covidct")


class Supervisor:
    """Keeps `settings.workers` processes alive.

    Workers are forked from a server process that has imported what they need and started nothing, so one is there
    within a second or two, and they share the memory of the code.

    Args:
        work: `module:function` that runs in each worker until it is told to end, given settings, listener and seat;
            a name, so that this process need not import it.
        settings: the service's.
        listener: bound; all workers accept from it.
    """

    def __init__(self, work: str, settings: Settings, listener: socket.socket) -> None:
        self._module, self._function = work.split(":")
        self._settings = settings
        self._listener = listener
        self._seats = seats(settings.workers)
        self._workers: dict[int, ForkServerProcess] = {}
        self._started_at: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._pause: dict[int, float] = {}
        self._signals: list[int] = []
        self._ending = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit status of the service."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        folder = _shared_folder()
        os.environ[METRICS_FOLDER_VARIABLE] = str(folder)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([self._module])
        try:
            return self._supervise()
        finally:
            for worker in self._workers.values():
                worker.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def _supervise(self) -> int:
        self._start(0)  # first one alone: what is wrong with the model is told once
        while not self._seats[0].is_ready():
            if self._signals or not self._workers[0].is_alive():
                return self._end(signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        for index in range(1, self._settings.workers):
            self._start(index)
        while True:
            for number in self._take_signals():
                if number != signal.SIGHUP:
                    return self._end(number)
                self._tell(signal.SIGHUP)
            self._replace_the_dead()
            wait([worker.sentinel for worker in self._workers.values()], _POLL_SECONDS)

    def _start(self, index: int) -> None:
        worker = self._context.Process(
            target=_run,
            args=(self._module, self._function, self._settings, self._listener, self._seats[index]),
            name=f"worker-{index}",
        )
        worker.start()
        self._workers[index] = worker
        self._started_at[index] = time.monotonic()

    def _replace_the_dead(self) -> None:
        now = time.monotonic()
        for index, worker in list(self._workers.items()):
            if not worker.is_alive():
                self._bury(index, worker, now)
        for index, due in list(self._due.items()):
            if now >= due:
                del self._due[index]
                self._seats[index].count_restart()
                self._start(index)

    def _bury(self, index: int, worker: ForkServerProcess, now: float) -> None:
        del self._workers[index]
        self._seats[index].beat(ready=False)
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
        was_steady = now - self._started_at[index] > _STEADY_SECONDS
        pause = self._pause[index] = (
            0.0 if was_steady else min(_MAX_PAUSE_SECONDS, 2 * self._pause.get(index, 0) or 0.5)
        )
        self._due[index] = now + pause
        fields = {"worker": index, "pid": worker.pid, "exit_status": worker.exitcode, "again_in_seconds": pause}
        _log.error("a worker died", extra={"fields": fields})

    def _end(self, number: int) -> int:
        """Pass the signal on, wait for everyone, and be as content as the least content of them."""
        self._tell(number)
        until = time.monotonic() + self._settings.drain_seconds + self._settings.shutdown_grace_seconds + _CLOSE_SECONDS
        while any(worker.is_alive() for worker in self._workers.values()) and time.monotonic() < until:
            if any(number != signal.SIGHUP for number in self._take_signals()):
                _log.warning("second signal: ending at once")
                return 128 + number
            wait([worker.sentinel for worker in self._workers.values()], _POLL_SECONDS)
        return max(
            (abs(worker.exitcode) if worker.exitcode is not None else 1 for worker in self._workers.values()), default=0
        )

    def _tell(self, number: int) -> None:
        for worker in self._workers.values():
            if worker.pid is not None and worker.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _take_signals(self) -> list[int]:
        signals, self._signals = self._signals, []
        return signals


def _run(module: str, function: str, settings: Settings, listener: socket.socket, seat: Seat) -> None:
    getattr(import_module(module), function)(settings, listener, seat)


def _shared_folder() -> Path:
    """In memory where there is such a place: a read-only container may have no other."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    parent = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="covidct-metrics-", dir=parent))
