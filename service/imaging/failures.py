"""Translates errors of decoders to errors of the file or of the memory, and silences their warnings."""

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.errors import ServiceError, damaged_image

_OUR_FOLDER: Final = str(Path(__file__).parent)

_FAULTS: Final = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)
"""Errors that our own code never raises because of the bytes of a file; libraries do."""


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Translate errors of a decoder: on hostile bytes libraries raise nearly anything, and may quote the header.

    Args:
        what: completes "The image is damaged: ...".

    Raises:
        ServiceError: one that was raised inside, or `damaged_image`.
        MemoryError: the decoder got no memory, also if only its message says so.
        Exception: a fault of this program.
    """
    silence_readers()
    try:
        yield
    except (ServiceError, MemoryError):
        raise
    except Exception as error:
        if re.search(r"\bmemory\b|unable to allocate", str(error), re.IGNORECASE):
            raise MemoryError from None
        if isinstance(error, _FAULTS) and traceback.extract_tb(error.__traceback__)[-1].filename.startswith(
            _OUR_FOLDER
        ):
            raise
        raise damaged_image(what) from None


def silence_readers() -> None:
    """Silence the warnings of pydicom, Pillow and tifffile, which quote the header or speak of a client's file.

    Done at each use, because a test or a library may have reset the filters. Never undone, because all threads share
    the filters.
    """
    warnings.filterwarnings("ignore", module=r"(pydicom|PIL|tifffile|service\.imaging)")
    for name in ("pydicom", "tifffile"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
