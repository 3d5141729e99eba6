"""One serving process, alone or one of several: loads the model, then serves until it is told to end."""

import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

from service.access import KeysError, is_loopback
from service.app import create_app
from service.errors import ModelFileError
from service.fleet import Seat
from service.logs import configure_logging
from service.predictor import load_predictor
from service.processor import usable_processors
from service.server import Server
from service.settings import Settings

_log = logging.getLogger("covidct")


def work(settings: Settings, listener: socket.socket, seat: Seat) -> NoReturn:
    """Be one of several workers; ends the process."""
    os.setpgrp()  # an interrupt from the terminal is for the supervisor, which passes it on
    configure_logging(settings.log_level)
    threads = settings.threads or max(1, usable_processors() // settings.workers)
    sys.exit(serve(settings.model_copy(update={"threads": threads}), listener, seat))


def serve(settings: Settings, listener: socket.socket, seat: Seat | None = None) -> int:
    """Serve on `listener`, which is bound; the process' exit status.

    What an operator can mend is one line on stderr, and status 1.
    """
    try:
        predictor = load_predictor(settings)
        app = create_app(settings, predictor, seat)
    except (ModelFileError, KeysError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    address = "{}:{}".format(*listener.getsockname()[:2])
    _log.info("model ready", extra={"fields": {**predictor.description, "address": address}})
    if not app.state.serving.keys.required:
        _tell_that_it_is_open(settings.host)
    server = Server(app, settings, seat)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_quietly)  # the server raises its signal again when it has answered everyone
    server.run([listener])
    return 0 if server.started else 1


def _tell_that_it_is_open(host: str) -> None:
    if is_loopback(host):
        _log.info("no API keys are set: this machine alone can reach the service")
        return
    _log.warning("no API keys are set, and others than this machine can reach the service: set COVIDCT_API_KEYS")


def _exit_quietly(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
