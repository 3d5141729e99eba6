"""Failures of decoding in a worker, and the errors that clients get for them."""

import logging
from enum import Enum
from typing import Final

from service.errors import (
    ErrorCode,
    OverloadedError,
    ServiceError,
    UnsupportedImageError,
    UnusableImageError,
    damaged_image,
    limit_exceeded,
)
from service.imaging.cage.ending import Ending
from service.imaging.cage.limits import WorkerLimits
from service.imaging.cage.messages import FAULT, Head

_ERRORS: Final = {kind.__name__: kind for kind in (UnsupportedImageError, UnusableImageError)}

_log = logging.getLogger("covidct.decoders")


class Retry(Enum):
    """Lane that may decode a file after a failure in one before it."""

    NEXT_LANE = "next lane"
    LAST_LANE = "last lane"  # the only one with more memory
    NO_LANE = "no lane"


class WorkerEndedError(Exception):
    """A worker ended early; some decoders crash without memory."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending
        retries = {Ending.MEMORY: Retry.LAST_LANE, Ending.CRASH: Retry.LAST_LANE, Ending.NO_MEMORY: Retry.NO_LANE}
        self.retry = retries.get(ending, Retry.NEXT_LANE)


class FileRefusedError(Exception):
    """A worker refused a file; `head` is that of its last frame."""

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.head = head
        self.retry = Retry.LAST_LANE if _may_be_memory(head) else Retry.NO_LANE


def refuse_if_memory(head: Head) -> None:
    """Raise FileRefusedError if a slice has an error that may be a lack of memory."""
    if _may_be_memory(head):
        raise FileRefusedError(head)


def refusal(ending: Ending, limits: WorkerLimits) -> ServiceError:
    """Build the error of a file that ended its worker."""
    match ending:
        case Ending.TIME:
            return limit_exceeded(f"decoding takes more than {limits.seconds:g} seconds of processor time")
        case Ending.STUCK:  # after minutes in every lane; not of the machine alone, so that it ends no whole study
            return limit_exceeded("decoding takes too long")
        case Ending.MEMORY:
            return limit_exceeded(f"decoding needs more than {limits.memory_bytes / 1024**2:g} MiB of memory")
        case Ending.CRASH:
            return crashed()
        case _:
            return OverloadedError(
                "The decoder was ended, or the machine has no memory for it; try again.",
                code=ErrorCode.OUT_OF_MEMORY,
                retry_after_seconds=1,
            )


def crashed() -> UnusableImageError:
    """Build the error of a file that crashed its decoder, or made it send what it should not."""
    return damaged_image("a decoder crashed on it")


def unpack_error(head: Head) -> ServiceError:
    """Build the error of a file, or log a fault of this program and build its error, without trusting the worker."""
    try:
        if head["error"] == FAULT:
            _log.error("a decoder has a fault", extra={"fields": {"place": str(head["detail"])}})
            return ServiceError("A decoder of the service failed; the log has the place. Please report it.")
        return _ERRORS[head["error"]](str(head["detail"]), code=ErrorCode(head["code"]))
    except (KeyError, TypeError, ValueError):
        return crashed()


def _may_be_memory(head: Head) -> bool:
    """Whether an error may be a lack of memory: some decoders do not distinguish it from damage."""
    return head.get("error") == FAULT or head.get("code") == ErrorCode.DAMAGED_IMAGE
