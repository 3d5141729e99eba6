"""Whatever a decoder raises, as an error of the file or of the memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ServiceError, damaged_image


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Translate any error of a decoder: they raise nearly anything on hostile bytes, and may quote the header.

    Args:
        what: completes "The image is damaged: ...".

    Raises:
        ServiceError: one that was raised inside, or `damaged_image`.
        MemoryError: the decoder got no memory, also if it said so in words alone.
    """
    try:
        yield
    except (ServiceError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        if re.search(r"\bmemory\b", str(error), re.IGNORECASE):
            raise MemoryError from None
        raise damaged_image(what) from None
