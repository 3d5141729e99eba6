"""Releases a model again and again, killed with SIGKILL before the first change of a file, the second one, and so on.

python -m tests.support.processes.killed_release NEW OLD OUT: OUT/1, OUT/2, ... are copies of OLD, each after one kill.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from training.models.publish import copy_model

_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Events of Python's audit for whatever changes a folder."""


def main(new: Path, old: Path, out: Path) -> None:
    """Kill one process a change, until one ends by itself."""
    point, killed = 0, True
    while killed:
        point += 1
        folder = out / str(point)
        shutil.copytree(old, folder)
        child = os.fork()
        if child == 0:
            _kill_before(point, folder)
            copy_model(new, folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        if not killed and status:
            sys.exit(f"the release failed at point {point}")


def _kill_before(point: int, folder: Path) -> None:
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        if event in _CHANGES and str(folder) in str(arguments[0]):
            changes += 1
            if changes == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
