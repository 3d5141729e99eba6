"""The web server of one process: its signals, and how it ends."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from multiprocessing import parent_process
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.connection import connections
from service.errors import ReloadError
from service.fleet import Seat
from service.serving import Serving
from service.settings import Settings

_BEAT_SECONDS: Final = 0.25

_log = logging.getLogger("covidct")


class Server(uvicorn.Server):
    """uvicorn's server, which also drains before it ends, reloads at SIGHUP and ends at once at a second signal.

    Args:
        app: from `create_app`.
        settings: the same as the application's.
        seat: this process' place among several workers; None where it is the only one.
    """

    def __init__(self, app: FastAPI, settings: Settings, seat: Seat | None = None) -> None:
        serving = app.state.serving
        assert isinstance(serving, Serving)  # noqa: S101 - create_app puts it there
        config = uvicorn.Config(
            app,
            http=connections(settings, serving.metrics),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        )
        super().__init__(config)
        self._serving = serving
        self._drain_seconds = settings.drain_seconds
        self._seat = seat
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: self._keep(self._reload()))
        self._keep(self._watch())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal asks for an orderly end, the second one for an end."""
        if self._serving.draining or self.should_exit:
            _log.warning("second signal: ending at once")
            os._exit(128 + sig)
        self._serving.draining = True
        self._captured_signals.append(sig)
        if sig == signal.SIGINT or not self.started:  # somebody sits at the terminal, and no proxy has to be told
            self.should_exit = True
            return
        _log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        asyncio.get_running_loop().call_later(self._drain_seconds, self._stop_listening)

    def _stop_listening(self) -> None:
        self.should_exit = True

    async def _reload(self) -> None:
        try:
            await self._serving.reload()
        except ReloadError:  # logged and counted where it happened
            return

    async def _watch(self) -> None:
        """Tell the other workers that this one answers, and end where the device is lost: a restart may cure that."""
        while True:
            if self._seat is not None:
                self._seat.beat(self._serving.answering)
                if not _supervisor_lives() and not self._serving.draining:
                    signal.raise_signal(signal.SIGTERM)
            self._serving.metrics.observe()
            if self._serving.device_lost:
                _log.critical("the device is lost; ending, so that the supervisor starts anew")
                os._exit(1)
            await asyncio.sleep(_BEAT_SECONDS)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        """Run it, and hold on to it: asyncio itself forgets tasks."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _supervisor_lives() -> bool:
    parent = parent_process()
    return parent is None or parent.is_alive()
