"""`python -m service`: load the model, then serve until SIGTERM."""

if __name__ == "__main__":  # before anything else is imported, which takes a second
    from service.server.start_signals import StartSignals

    start_signals = StartSignals()
    start_signals.install()

import argparse
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service import DISCLAIMER
from service.errors import ModelFileError
from service.imaging.cage.fork_server import ForkServer
from service.processors import usable_processors
from service.server.logging import configure_logging
from service.server.open_files import allow_connections
from service.server.start_signals import StartSignals
from service.settings import Settings, is_loopback
from service.web.api_keys import ApiKeys, KeysError

_CLIENT_KEY: Final = "COVIDCT_API_KEY"
"""Read by the client, not by the service; it may be set where both run."""

_SEND_BUFFER_BYTES: Final = 128 * 1024
"""Of a connection, in the kernel: by itself it would take up to 4 MiB for a client that reads nothing."""

_log = logging.getLogger("covidct")


def main(arguments: Sequence[str] | None = None, signals: StartSignals | None = None) -> int:
    """Run the service. Configuration errors are one line on stderr and exit status 1."""
    _parser().parse_args(arguments)
    unknown = [name for name in os.environ if name.startswith("COVIDCT_") and name not in (*_variables(), _CLIENT_KEY)]
    if unknown:
        what = "unknown setting" if len(unknown) == 1 else "unknown settings"
        print(f"error: {', '.join(sorted(unknown))}: {what}; --help lists all settings", file=sys.stderr)
        return 1
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"error: {_first(error)}", file=sys.stderr)
        return 1
    for contradiction in (contradictions := settings.contradictions()):
        print(f"error: {contradiction}", file=sys.stderr)
    if contradictions:
        return 1
    configure_logging(settings.log_level)
    _log_too_many_threads(settings.threads)
    try:
        allow_connections(settings.max_connections)
        ApiKeys(settings)  # read here only to report their errors before torch and the model are loaded
        with _bind(settings) as listener:
            return serve(settings, listener, signals)
    except (OSError, ModelFileError, KeysError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def serve(settings: Settings, listener: socket.socket, signals: StartSignals | None = None) -> int:
    """Load the model and serve on `listener`, which is bound but does not listen yet.

    Args:
        settings: of the service.
        listener: its socket.
        signals: signals since the start of the process.

    Returns:
        The exit status of the process.

    Raises:
        ModelFileError, KeysError: the model or the API keys are not usable.
    """
    with ForkServer() as decoders:
        decoders.start()  # while torch and the model are loaded
        return _serve(settings, listener, signals, decoders)


def _serve(settings: Settings, listener: socket.socket, signals: StartSignals | None, decoders: ForkServer) -> int:
    # Imported here because torch takes seconds to import: --help and errors of settings, keys and address come first.
    from service.inference.service_state import load
    from service.server.http_server import Server
    from service.web.app import create_app

    gc.freeze()  # collecting garbage takes 2 ms without the objects of modules, which stay, and 0.1 s with them
    predictor = load(settings)
    app = create_app(settings, predictor, decoders)
    address = "{}:{}".format(*listener.getsockname()[:2])
    fields = {**predictor.description, "precision_milliseconds": predictor.choice.milliseconds, "address": address}
    _log.info("model ready", extra={"fields": fields})
    if not app.state.api_keys.required:
        _log_exposure(settings.host)
    if _CLIENT_KEY in os.environ:
        _log.warning(
            "%s is the client's key and has no effect here; the service's keys are COVIDCT_API_KEYS", _CLIENT_KEY
        )
    server = Server(app, settings, signals)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_quietly)  # the server raises its signal again after the last response
    server.run([listener])
    return 0 if server.started else 1


def _log_too_many_threads(threads: int | None) -> None:
    """Warn about too many threads: the service is slower then, but the processor limit of a pod may exceed its node."""
    processors = usable_processors()
    if threads is not None and threads > processors:
        _log.warning(
            "COVIDCT_THREADS=%d is more than the number of usable processors, %d: lower or remove it",
            threads,
            processors,
        )


def _log_exposure(host: str) -> None:
    if is_loopback(host):
        _log.info("no API keys are set; only this machine can reach the service")
        return
    _log.warning("no API keys are set, and other machines can reach the service: set COVIDCT_API_KEYS")


def _exit_quietly(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _bind(settings: Settings) -> socket.socket:
    """Bind the address before the model is loaded, so that an address in use is reported at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up, such as a..b
        listener.close()
        where = f"COVIDCT_HOST={settings.host}, COVIDCT_PORT={settings.port}"
        reason = error.strerror if isinstance(error, OSError) else None
        raise OSError(f"{where}: can't listen there: {reason or error}") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    fields = _variables()
    width = max(map(len, fields)) + 1
    lines = [f"  {name:{width}} {field.description} (default: {field.default})" for name, field in fields.items()]
    return argparse.ArgumentParser(
        prog="python -m service",
        description=f"Serve a chest CT model. {DISCLAIMER} Settings come from the environment:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _variables() -> dict[str, FieldInfo]:
    return {f"COVIDCT_{name.upper()}": field for name, field in Settings.model_fields.items()}


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = "COVIDCT_" + ".".join(map(str, problem["loc"])).upper()
    if problem["type"] == "value_error":  # of our validators, whose messages contain the value
        return f"{name}: {problem['ctx']['error']}"
    if problem["type"].startswith("byte_size"):
        return f"{name}: write bytes, or a number with a unit such as 20MB or 20MiB (found {problem['input']!r})"
    return f"{name}: {problem['msg']} (found {problem['input']!r})"


if __name__ == "__main__":
    sys.exit(main(signals=start_signals))  # type: ignore[possibly-undefined] # the same condition as above
