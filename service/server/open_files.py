"""The limit of open files, of which every connection takes one."""

import resource
from typing import Final

_BESIDE_CONNECTIONS: Final = 256
"""Open files for decoders, libraries, the model and the log."""


def allow_connections(count: int) -> None:
    """Raise this process's soft limit of open files to what so many connections need.

    Raises:
        OSError: the hard limit is lower; the message says what to change.
    """
    needed = count + _BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_below(hard, needed):
        raise OSError(
            f"COVIDCT_MAX_CONNECTIONS={count} needs {needed} open files, and the limit is {hard}; raise it "
            f"(ulimit -n {needed}), or lower the setting"
        )
    if _is_below(soft, needed):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _is_below(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed
