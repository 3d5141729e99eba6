"""Translates errors of decoders to errors of the file or of the memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError, damaged_image


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Translate any error of a decoder: on hostile bytes they raise nearly anything, and may quote the header.

    Args:
        what: completes "The image is damaged: ...".

    Raises:
        ServiceError: one that was raised inside, or `damaged_image`.
        MemoryError: the decoder got no memory, also if only its message says so.
    """
    try:
        yield
    except (ServiceError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        if re.search(r"\bmemory\b", str(error), re.IGNORECASE):
            raise MemoryError from None
        raise damaged_image(what) from None
