"""Web server: signals, reload, drain and shutdown."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.server.connection import connections
from service.server.start_signals import StartSignals
from service.settings import Settings
from service.web.app import reload_keys, reload_model
from service.web.dependencies import state_of

_WATCH_SECONDS: Final = 0.25

_log = logging.getLogger("covidct")


class Server(uvicorn.Server):
    """uvicorn's server with a drain before shutdown, reload at SIGHUP, and an immediate end at a second signal.

    Args:
        app: from `create_app`.
        settings: the same as the application's.
        start_signals: signals that arrived before.
    """

    def __init__(self, app: FastAPI, settings: Settings, start_signals: StartSignals | None = None) -> None:
        state = state_of(app)
        config = uvicorn.Config(
            app,
            http=connections(settings, state.metrics),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        )
        super().__init__(config)
        self._state = state
        self._drain_seconds = settings.drain_seconds
        self._dead_after_seconds = settings.request_timeout_seconds  # the time that the last requests may take
        self._app = app
        self._start_signals = start_signals or StartSignals()
        self._reloads = {reload: asyncio.Event() for reload in (reload_keys, reload_model)}
        self._reloading: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        if self._start_signals.reload_wanted:
            self._want_reload()
        self._reloading = [loop.create_task(self._reload(*reload)) for reload in self._reloads.items()]
        self._watching = loop.create_task(self._watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop reloading, finish the requests in flight, then end the application."""
        for task in self._reloading:
            task.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Drain and end at the first signal; end at once at the second."""
        if self._state.draining or self.should_exit:
            _log.warning("second signal: ending at once")
            os._exit(128 + sig)
        self._state.draining = True
        self._captured_signals.append(sig)
        if sig == signal.SIGINT or not self.started:  # at a terminal there is no load balancer to wait for
            self.should_exit = True
            return
        _log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        asyncio.get_running_loop().call_later(self._drain_seconds, self._stop_listening)

    def _stop_listening(self) -> None:
        self.should_exit = True

    def _want_reload(self) -> None:
        for wanted in self._reloads.values():
            wanted.set()

    async def _reload(self, reload: Callable[[FastAPI], Awaitable[bool]], wanted: asyncio.Event) -> None:
        """Reload keys or model at SIGHUP, one at a time; signals during a reload cause one more.

        Each has its own task, so that a key can be revoked while a slow disk holds up the model.
        """
        while True:
            await wanted.wait()
            wanted.clear()
            await reload(self._app)

    async def _watch(self) -> None:
        """End the process when only a new one can predict: the device is lost, or `/health/live` stays at 503.

        Container engines restart a container that ended, but not one that is unhealthy.
        """
        clock = self._state.clock
        healthy_at = clock.seconds
        while not self._state.device_lost:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._state.is_healthy or not self._state.is_loaded:
                healthy_at = clock.seconds
            elif clock.seconds - healthy_at > self._dead_after_seconds:
                _log.critical("the network no longer answers; ending, so that the supervisor starts a new process")
                os._exit(1)
        _log.critical("the device is lost; ending, so that the supervisor starts a new process")
        os._exit(1)
