"""Stages of a run: each result is computed once, and read back from its file after an interruption."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from training.errors import TrainingError
from training.run.atomic_write import write_atomically
from training.run.processes import current, first_only
from training.run.record import Record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=Record)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
ArraysT = TypeVar("ArraysT", bound="DataclassInstance")


def computed_once(
    path: Path,
    load: Callable[[Path], T | None],
    save: Callable[[Path, T], object],
    compute: Callable[[], T],
    *,
    by_all: bool = False,
) -> T:
    """Load the result of a stage that an earlier process finished, or compute and save it.

    Args:
        path: file of the result.
        load: reads it; returns None if the result is out of date, so that the stage is computed again.
        save: writes it.
        compute: does the work.
        by_all: whether all processes of a run compute together; otherwise the others wait for the first.
    """
    if not current().lacks(path):
        with restoring(path):
            stored = load(path)
        if stored is not None:
            return stored
    result = compute() if by_all else None

    def write() -> None:
        save(path, compute() if result is None else result)

    first_only(write)()
    with restoring(path):
        stored = load(path)
    if stored is None:
        raise TrainingError(f"{path}: the file of this stage can't be read back; --fresh starts over")
    return stored


def resumed_record(
    path: Path, kind: type[RecordT], compute: Callable[[], RecordT], valid: Callable[[RecordT], bool] = lambda _: True
) -> RecordT:
    """Read the record of a finished stage if it is still valid, or compute and write it."""

    def load(path: Path) -> RecordT | None:
        record = read_record(path, kind)
        return record if record is not None and valid(record) else None

    return computed_once(path, load, lambda path, record: record.write(path), compute)


def read_record(path: Path, kind: type[RecordT]) -> RecordT | None:
    """Read a record; None if there is none, or one of another version of this code."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def resumed_network(
    path: Path, network: NetworkT, compute: Callable[[], NetworkT], *, by_all: bool = False
) -> NetworkT:
    """Fill a network with the weights of a finished stage, or compute and save them.

    Args:
        path: file of the weights.
        network: receives the weights; returned in evaluation mode.
        compute: trains a network of the same kind.
        by_all: as in `computed_once`.
    """

    def load(path: Path) -> NetworkT:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.eval()

    def save(path: Path, trained: NetworkT) -> None:
        write_atomically(path, lambda file: torch.save(trained.state_dict(), file))

    return computed_once(path, load, save, compute, by_all=by_all)


def resumed_arrays(path: Path, kind: type[ArraysT], compute: Callable[[], ArraysT]) -> ArraysT:
    """Read the arrays of a finished stage, which are the fields of a dataclass, or compute and save them."""
    names = [field.name for field in fields(kind)]

    def load(path: Path) -> ArraysT:
        with np.load(path) as stored:
            return kind(**{name: stored[name] for name in names})

    def save(path: Path, arrays: ArraysT) -> None:
        columns = {name: getattr(arrays, name) for name in names}
        write_atomically(path, lambda file: np.savez_compressed(file, **columns))

    return computed_once(path, load, save, compute)


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Report errors while a checkpoint is read and applied as errors of its file.

    Raises:
        TrainingError: the checkpoint can't be read, or belongs to another run.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path}: not a checkpoint of this run ({reason}); --fresh starts over") from error
