"""Processes of one run under torchrun: rank, collectives and shared shutdown."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from training.errors import TrainingError

P = ParamSpec("P")

_LONGEST_WAIT: Final = timedelta(hours=24)
"""The others wait while the first process trains the lung finder; a process that ended is noticed at once."""

_ENDED: Final = "another process of this run ended, or it was stopped; run the same command again to continue"


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: 0 is the first process, the only one that writes files and lines.
        count: processes of the run.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def places(self, length: int) -> range:
        """Return this process's places of a sequence: every `count`-th."""
        return range(self.rank, length, self.count)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add the values of all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Join the rows of all processes at their `places`, in the order of the whole sequence."""
        if self.count == 1:
            return rows
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, rows)
        whole = np.empty((sum(len(part) for part in parts), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.count] = part
        return whole

    def wait(self) -> None:
        """Wait for every process."""
        if self.count > 1:
            distributed.barrier()

    def lacks(self, path: Path) -> bool:
        """Whether a file is missing, as the first process sees it."""
        missing = [not path.is_file()]
        if self.count > 1:
            distributed.broadcast_object_list(missing, src=0)
        return missing[0]

    def check_same(self, value: int, what: str) -> None:
        """Check that a number is the same in every process."""
        values = self.sum(torch.tensor([value, value * value]))
        if values[0] != value * self.count or values[1] != value * value * self.count:
            raise TrainingError(f"the processes do not agree on {what}; the run folder must be on a shared disk")

    def leave_to_first(self) -> None:
        """End every process but the first, which then continues alone."""
        if self.count > 1:
            self.wait()
            distributed.destroy_process_group()
            if not self.is_first:
                raise SystemExit(0)
            _set(Processes())


_current = Processes()


def current() -> Processes:
    """Return this process among those of the run; alone without torchrun."""
    return _current


def _set(processes: Processes) -> None:
    global _current
    _current = processes


def first_only(act: Callable[P, None]) -> Callable[P, None]:
    """Let the first process call a function while the others wait."""

    @wraps(act)
    def call(*arguments: P.args, **options: P.kwargs) -> None:
        if current().is_first:
            act(*arguments, **options)
        current().wait()

    return call


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if it did; the first error of any of them is the only one reported.

    Raises:
        TrainingError: another process ended, or torchrun stops this one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, rank, count = next(iter(rendezvous("env://", timeout=timedelta(minutes=5))))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(store=store, rank=rank, world_size=count, timeout=_LONGEST_WAIT)
    _set(Processes(rank, count))
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with ExitStack() as silenced:
            if rank > 0:
                nowhere = silenced.enter_context(Path(os.devnull).open("w"))
                silenced.enter_context(redirect_stderr(nowhere))
                silenced.enter_context(redirect_stdout(nowhere))
            yield
    except BaseException as error:
        raise _reported(error, store) from error
    finally:
        signal.signal(signal.SIGTERM, before)
        _set(Processes())
        if distributed.is_initialized() and sys.exc_info()[0] is None:
            distributed.destroy_process_group()


def _stop(*_: object) -> None:
    raise TrainingError(_ENDED)


def _reported(error: BaseException, store: Any) -> BaseException:
    """Return the error to raise: this one if it is the first of the run, else a silent end."""
    if isinstance(error, SystemExit):
        return error
    try:
        first = store.add("covid-ct/ended", 1) == 1
    except RuntimeError:  # torchrun itself is gone
        first = current().is_first
    if not first:
        return SystemExit(1)
    lost = isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    return TrainingError(_ENDED) if lost else error
