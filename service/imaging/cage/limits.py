"""Limits of decoding, which the kernel enforces on the workers of the cage."""

from dataclasses import dataclass
from typing import Final

_EARLIER_LANES: Final = ((0.05, 3), (0.5, 6))
"""Lanes before the last one: seconds of processor time for a slice, and niceness. A usual slice of 512 x 512 pixels
takes a quarter of the first; a photograph fits into the second. All are nicer than the network, whose threads wait for
each other."""

_EARLIER_BYTES: Final = 48 * 1024 * 1024
"""Memory for a slice in these lanes; DICOM, PNG and JPEG of 2048 x 2048 pixels were decoded with half of it."""

_LAST_NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Limits of a worker.

    Attributes:
        seconds: processor time of one slice; a worker that needs more gets SIGPROF.
        memory_bytes: address space beyond that of an idle worker.
        niceness: 0 to 19; more is less important.
    """

    seconds: float
    memory_bytes: int
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class CageLimits:
    """Limits of decoding one slice, enforced by the kernel.

    Attributes:
        seconds: processor time, so that neither load nor a pause of the machine counts: five times that of the slowest
            valid file, a JPEG 2000 of 4096 x 4096 pixels.
        memory_bytes: address space beyond that of an idle worker; the largest valid file, a WebP of 4096 x 4096 pixels
            with transparency, needs 300 MiB.
    """

    seconds: float = 10.0
    memory_bytes: int = 320 * 1024 * 1024


def lane_limits(limits: CageLimits) -> list[WorkerLimits]:
    """List the limits of the lanes, the quickest first; the last one has those of the cage."""
    memory_bytes = min(limits.memory_bytes, _EARLIER_BYTES)
    earlier = [(seconds, niceness) for seconds, niceness in _EARLIER_LANES if seconds < limits.seconds]
    last = WorkerLimits(limits.seconds, limits.memory_bytes, _LAST_NICENESS)
    return [*(WorkerLimits(seconds, memory_bytes, niceness) for seconds, niceness in earlier), last]
