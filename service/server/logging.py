"""Logs as JSON lines on stderr."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

_log = logging.getLogger("covidct")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object in one line, with the record's `fields` merged in."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str) -> None:
    """Send all log records, warnings of libraries and uncaught errors to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True  # the service logs every request itself
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the signature of warnings.showwarning
    line: str | None = None,  # noqa: ARG001
) -> None:
    fields = {"category": category.__name__, "place": f"{filename}:{lineno}"}
    logging.getLogger("py.warnings").warning("%s", message, extra={"fields": fields})


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught error", exc_info=(kind, error, trace))
