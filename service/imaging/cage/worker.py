"""A worker: decodes one file after another, within limits that the kernel enforces."""

import gc
import mmap
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from service.errors import ErrorCode, ServiceError
from service.imaging.cage.limits import WorkerLimits
from service.imaging.cage.messages import FAULT, MEMORY, NO_MEMORY, Head, receive_data, receive_head, send
from service.imaging.cage.one_slice import pack_slice
from service.imaging.cage.study import pack_slices
from service.imaging.signatures import is_nifti

_COPIES: Final = 2
"""Of a file, while its slices are read."""

_VOLUME_COPIES: Final = 4
"""Of a NIfTI file, which is held whole."""

_SMALL_BYTES: Final = 4 * 1024 * 1024

_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Memory that a worker may keep after a file; beyond it, a new worker is smaller and takes milliseconds to start."""

_MAX_DETAIL: Final = 4000
"""Maximum characters of an error message."""

_CODECS: Final = ("jpeg8", "jpeg2k", "jpegls", "jpegxl")
_TIFF_CODECS: Final = ("bitorder", "delta", "lzma", "lzw", "packbits", "packints", "zlib", "zstd")

_UNUSED: Final = ("gdcm", "jpeg_ls", "pylibjpeg", "requests", "scipy")
"""Optional packages of pydicom and nibabel, which are never used and need half of the memory."""


def prepare() -> None:
    """Import all modules for decoding, because a worker cannot open files."""
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment] # Python's own mark of a module that can't be imported
    import imagecodecs
    import nibabel.nifti2
    import nibabel.orientations  # noqa: F401 - for the workers
    import pydicom.encaps
    import pydicom.filereader
    import pydicom.pixels.processing  # noqa: F401 - for the workers
    import tifffile  # noqa: F401 - for the workers

    Image.init()
    for codec in _CODECS + _TIFF_CODECS:
        getattr(imagecodecs, f"{codec}_decode")
    gc.collect()
    gc.freeze()  # so that the memory stays shared


def serve(connection: socket.socket, limits: WorkerLimits) -> None:
    """Decode the files that arrive on a socket until it is closed, or a file has needed too much memory."""
    memory = _Memory(limits.memory_bytes)
    _give_up_all_else(limits.niceness)
    send(connection, {"ready": True})
    with suppress(EOFError):
        while True:
            try:
                order, size = receive_head(connection)
                memory.limit(_COPIES * size)
                data = receive_data(connection, size)
                if "name" in order and is_nifti(data, order["name"]):
                    memory.limit(_VOLUME_COPIES * size + limits.memory_bytes)
                _respond(connection, order, data, limits.seconds, memory)
                del data
            except MemoryError:
                send(connection, {"error": NO_MEMORY if memory.is_scarce() else MEMORY})
                return


def _respond(connection: socket.socket, order: Head, data: bytes, seconds: float, memory: "_Memory") -> None:
    """Send a frame for each slice, and a last one; raises MemoryError."""
    last: Head = {"end": True}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        for head, parts in _results(order, data):
            signal.setitimer(signal.ITIMER_PROF, 0)  # the reader may be slow
            send(connection, head, *parts)
            signal.setitimer(signal.ITIMER_PROF, seconds)
    except ServiceError as error:
        if error.code == ErrorCode.DAMAGED_IMAGE and (memory.is_exhausted() or memory.is_scarce()):
            raise MemoryError from None  # some decoders do not distinguish them
        last = {"final": True, **_described(error)}
    except (MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours; its text may hold what the file says
        last = {"final": True, "error": FAULT, "detail": _place(error)}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    send(connection, last | {"has_grown": memory.has_grown()})


def _results(order: Head, data: bytes) -> Iterator[tuple[Head, list[bytes]]]:
    if order["kind"] == "study":
        for slice_ in pack_slices(order, data):
            yield (_described(slice_), []) if isinstance(slice_, ServiceError) else slice_
    else:
        yield pack_slice(order, data)


def _described(error: ServiceError) -> Head:
    return {"error": type(error).__name__, "code": error.code, "detail": error.detail[:_MAX_DETAIL]}


def _place(error: Exception) -> str:
    """Return kind and place of an error, without its text."""
    at, trace = "", error.__traceback__
    while trace is not None:
        at = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {at}"


class _Memory:
    """The limit of the address space.

    Args:
        max_bytes: beyond those of an idle worker.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self._status: int | None = None
        with suppress(OSError):  # not Linux
            self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._base = self._peak()
        self._kept = self._status_bytes("RssAnon")
        self._soft = 0

    def limit(self, more: int) -> None:
        """Set the limit, with `more` bytes for the copies of a file."""
        self._soft = self._base + self._max_bytes + more
        if self._hard == resource.RLIM_INFINITY or self._soft < self._hard:
            with suppress(OSError, ValueError):  # not of this system
                resource.setrlimit(resource.RLIMIT_AS, (self._soft, self._hard))

    def has_grown(self) -> bool:
        """Whether the worker has kept so much memory of its files that a new one is smaller, or its peak is useless."""
        has_high_peak = self._peak() - self._base > self._max_bytes // 2  # the next file would seem to need as much
        return has_high_peak or self._status_bytes("RssAnon") - self._kept > _KEPT_BYTES

    def is_exhausted(self) -> bool:
        """Whether the limit was reached, up to a few small pieces."""
        return self._peak() > self._soft - _SMALL_BYTES

    def is_scarce(self) -> bool:
        """Whether the machine has much less memory than the limit allows."""
        try:
            resource.setrlimit(resource.RLIMIT_AS, (self._hard, self._hard))
            mmap.mmap(-1, self._max_bytes // 2).close()  # half: it raises the peak, and the limit must stay above
        except (OSError, ValueError, MemoryError):
            return True
        return False

    def _peak(self) -> int:
        """Return the peak size of the address space in bytes."""
        return self._status_bytes("VmPeak")

    def _status_bytes(self, name: str) -> int:
        """Return an entry of the process's status in bytes; 0 if the system does not report it."""
        status = os.pread(self._status, 4096, 0).decode() if self._status is not None else ""
        entry = re.search(rf"{name}:\s+(\d+) kB", status)
        return int(entry[1]) * 1024 if entry else 0


def _give_up_all_else(niceness: int) -> None:
    """Give up everything that decoding does not need: files, sockets, processes, priority, output."""
    with open(os.devnull, "r+b", buffering=0) as nowhere:  # noqa: PTH123 - codecs print what is wrong with a file
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    with suppress(OSError), Path("/proc/self/oom_score_adj").open("r+b", buffering=0) as score:
        score.write(b"1000")  # if memory runs out, the kernel ends this process before the service
    os.nice(niceness)
    for kind in (
        resource.RLIMIT_CORE,  # it would contain the image
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_NOFILE,  # what is open stays open
    ):
        with suppress(OSError, ValueError):  # not of this system
            resource.setrlimit(kind, (0, 0))
