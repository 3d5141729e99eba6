"""The process that forks workers."""

import socket
import subprocess
import sys

from tests.support.processes.server import ROOT

PROGRAM = """
import os, signal, sys
from service.imaging.cage.fork_server import main
main(int(sys.argv[1]))
os.kill(os.getpid(), signal.SIGCHLD)
"""
"""A worker ends when the fork server has closed its sockets and is exiting."""


def test_workers_that_end_late_make_an_exiting_fork_server_write_nothing() -> None:
    service, control = socket.socketpair()
    with control:
        service.close()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(control.fileno())],
            pass_fds=[control.fileno()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stderr == ""
