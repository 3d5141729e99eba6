"""`python -m service`: load the model, then serve until SIGTERM."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.disclaimer import DISCLAIMER
from service.logs import configure_logging
from service.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; what an operator can mend is one line on stderr and exit status 1."""
    _parser().parse_args(arguments)
    unknown = [name for name in os.environ if name.startswith("COVIDCT_") and name not in _variables()]
    if unknown:
        print(f"error: {unknown[0]}: there is no such setting; --help lists them", file=sys.stderr)
        return 1
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"error: {_first(error)}", file=sys.stderr)
        return 1
    configure_logging(settings.log_level)
    try:
        listener = _bind(settings)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Imported here: several workers each have torch, and who supervises them needs none of it.
    if settings.workers > 1:
        from service.supervisor import Supervisor

        return Supervisor("service.worker:work", settings, listener).run()
    from service.worker import serve

    return serve(settings, listener)


def _bind(settings: Settings) -> socket.socket:
    """Take the address before the model is loaded, so that a taken one is told at once; it does not listen yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"COVIDCT_HOST={settings.host}, COVIDCT_PORT={settings.port}"
        raise OSError(f"{where}: can't listen there: {error.strerror or error}") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    fields = _variables()
    width = max(map(len, fields)) + 1
    lines = [f"  {name:{width}} {field.description} (default: {field.default})" for name, field in fields.items()]
    return argparse.ArgumentParser(
        prog="python -m service",
        description=f"Serve a chest CT model. {DISCLAIMER} Settings come from the environment, see below.",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _variables() -> dict[str, FieldInfo]:
    return {f"COVIDCT_{name.upper()}": field for name, field in Settings.model_fields.items()}


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = "COVIDCT_" + ".".join(map(str, problem["loc"])).upper()
    return f"{name}: {problem['msg']} (found {problem['input']!r})"


if __name__ == "__main__":
    sys.exit(main())
