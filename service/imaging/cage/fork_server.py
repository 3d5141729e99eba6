"""Process that forks workers: it has imported the decoders, so a new worker takes milliseconds.

Python's `forkserver` imports the main module of the program into every worker and ends a worker by its process id,
which may belong to another process by then. Here each worker has one socket, and closing the socket ends the worker.
"""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, Self

from service.imaging.cage.limits import WorkerLimits

_ROOT: Final = Path(__file__).parents[3]

_ORDER: Final = struct.Struct(">dqi")
"""Order for a worker: `WorkerLimits`."""

STATUS: Final = struct.Struct(">i")
"""Last bytes on a worker's socket: its exit status, negative for a signal."""

_END_SECONDS: Final = 5.0

_PRIVATE: Final = "COVIDCT_"
"""Prefix of environment variables that workers do not get, such as API keys."""


class ForkServer:
    """Starts the process and requests workers from it; a context manager.

    The process and its workers end with this process.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        """Process id."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process if it is not running; it is ready half a second later."""
        if self.is_running:
            return
        self.close()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(_ROOT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                process_group=0,  # Ctrl-C is for this process, which then ends the other; one session shares niceness
            )

    def fork(self, limits: WorkerLimits) -> socket.socket:
        """Request a worker.

        Returns:
            The socket of the worker, which sends a frame when it is ready. Closing it ends the worker.

        Raises:
            OSError: the process is not running.
        """
        self.start()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                order = _ORDER.pack(limits.seconds, limits.memory_bytes, limits.niceness)
                socket.send_fds(self._connection, [order], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the process and all its workers."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @property
    def _connection(self) -> socket.socket:
        if self._control is None:
            raise ConnectionError("the fork server is not running")
        return self._control


_PROGRAM: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from service.imaging.cage.fork_server import main
main(int(sys.argv[2]))
"""


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return kept | threads | {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": ""}  # huge pages, for the network, cost here


def main(control_number: int) -> None:
    """Fork workers on request until the service closes the control socket."""
    from service.imaging.cage.worker import prepare

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    _Forks(socket.socket(fileno=control_number)).run()


class _Forks:
    """The workers of this process.

    Its copy of a worker's socket shows when the service closes the other end, and carries the exit status.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ended, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)
        self._workers: dict[int, tuple[int, socket.socket]] = {}  # by file descriptor

    def run(self) -> None:
        """Handle orders until the control socket is closed, then end all workers."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while self._handle_events():
                pass
        finally:
            _forget_signals()  # workers end after this object and its sockets
            for descriptor in self._workers:
                self._end(descriptor)

    def _handle_events(self) -> bool:
        """Wait for events and handle them; return False if the control socket was closed."""
        serving = True
        for descriptor, _ in self._poll.poll():
            if descriptor == self._ended.fileno():
                self._ended.recv(4096)
                self._reap()
            elif descriptor == self._control.fileno():
                serving = self._fork()
            elif descriptor in self._workers:
                self._end(descriptor)
        return serving

    def _fork(self) -> bool:
        """Fork one worker; return False if the control socket was closed."""
        order, numbers, _, _ = socket.recv_fds(self._control, _ORDER.size, 1)
        if len(order) < _ORDER.size:
            return False
        connection = socket.socket(fileno=numbers[0])
        try:
            process = os.fork()
        except OSError:  # too many processes; the closed socket reports it
            connection.close()
            return True
        if process == 0:
            self._become_worker(connection, WorkerLimits(*_ORDER.unpack(order)))
        self._workers[connection.fileno()] = (process, connection)
        self._poll.register(connection, 0)
        return True

    def _become_worker(self, connection: socket.socket, limits: WorkerLimits) -> NoReturn:
        from service.imaging.cage.worker import serve

        status = 1
        try:
            _forget_signals()
            others = [other for _, other in self._workers.values()]
            for other in (self._control, self._ended, self._wake, *others):
                other.close()
            serve(connection, limits)
            status = 0
        finally:
            os._exit(status)

    def _end(self, descriptor: int) -> None:
        with suppress(KeyError):  # it is already ending
            self._poll.unregister(descriptor)
        os.kill(self._workers[descriptor][0], signal.SIGKILL)  # not reaped yet, so its process id is still valid

    def _reap(self) -> None:
        """Report the exit status of every worker that has ended."""
        for descriptor, (process, connection) in list(self._workers.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            del self._workers[descriptor]
            with suppress(KeyError):
                self._poll.unregister(descriptor)
            with suppress(OSError):
                connection.send(STATUS.pack(os.waitstatus_to_exitcode(status)), socket.MSG_DONTWAIT)
            connection.close()


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
