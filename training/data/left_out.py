"""Slices that are left out of training so that a model can be judged on sources that it never saw."""

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path

from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.lesion_recipe import LEFT_OUT_PARTS
from training.run.atomic_write import write_csv


def choose_left_out(slices: Sequence[CtSlice], sources: Sequence[str]) -> list[bool]:
    """Choose the slices to leave out: whole sources by name, and one of four groups of every other source.

    A group is a paper, a patient or a volume; its place follows from its name alone, so it never changes. Sources whose
    slices are all their own group, such as clear lungs, are not divided.

    Raises:
        TrainingError: as `check_left_out`.
    """
    check_left_out(slices, sources)
    return [each.source in sources or (_is_divided(each) and _part(each) == 0) for each in slices]


def check_left_out(slices: Sequence[CtSlice], sources: Sequence[str]) -> None:
    """Check before training that there are slices of every source that is to be left out.

    Raises:
        TrainingError: no slice is of a source that was named.
    """
    known = {each.source for each in slices}
    unknown = [name for name in sources if name not in known]
    if unknown:
        raise TrainingError(f"--leave-out {unknown[0]}: no such source; there are {', '.join(sorted(known))}")


def check_parts(slices: Sequence[CtSlice], left_out: Sequence[bool]) -> None:
    """Check that what is left out can judge a network, and that the rest can train one.

    Raises:
        TrainingError: either part lacks a class or a slice with a drawn lesion.
    """
    for part, is_out in (("left out", True), ("left to train on", False)):
        inside = [slice_ for slice_, out in zip(slices, left_out, strict=True) if out == is_out]
        labels = {slice_.label for slice_ in inside if slice_.kind == "labelled"}
        if not {0, 1} <= labels:
            raise TrainingError(f"--leave-out: the labelled slices that are {part} are not of both classes")
        if not any(slice_.lesion is not None and slice_.lesion.any() for slice_ in inside):
            raise TrainingError(
                f"--lesions: no slice with a lesion is {part}; of the volumes, about one of {LEFT_OUT_PARTS} is left "
                "out by its name, so add volumes"
            )


def write_left_out(path: Path, slices: Sequence[CtSlice], left_out: Sequence[bool]) -> None:
    """Write source, group and file of the slices that are left out."""
    rows = ((each.source, each.group, each.name) for each, out in zip(slices, left_out, strict=True) if out)
    write_csv(path, ("source", "group", "file"), rows)


def read_left_out(path: Path, slices: Sequence[CtSlice]) -> list[bool]:
    """Read which slices an interrupted run left out."""
    with path.open(encoding="utf-8", newline="") as file:
        out = {(row["source"], row["file"]) for row in csv.DictReader(file)}
    return [(each.source, each.name) in out for each in slices]


def _is_divided(each: CtSlice) -> bool:
    return each.source == "covid-ct" or each.kind == "lesions"


def _part(each: CtSlice) -> int:
    return zlib.crc32(f"{each.source} {each.group}".encode()) % LEFT_OUT_PARTS
