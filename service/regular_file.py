"""Reading of a configured file that may be replaced by anything while the service runs."""

import errno
import os
import stat
from pathlib import Path


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file; a pipe could block for ever, and a device be endless.

    Raises:
        OSError: it can't be read, is not a regular file, or has more than `max_bytes`.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"more than {max_bytes} bytes")
        return file.read()
