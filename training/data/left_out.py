"""Slices that are left out of training, so that a model can be judged on unseen sources."""

import zlib
from collections.abc import Sequence

from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.lesion_recipe import LEFT_OUT_PARTS


def choose_left_out(slices: Sequence[CtSlice], sources: Sequence[str]) -> list[bool]:
    """Choose the slices to leave out: whole sources by name, and one of four groups of every other source.

    A group is a paper, a patient or a volume. Its part depends on its name alone, so it never changes. Sources without
    groups, such as clear lungs, are not divided.
    """
    known = {slice_.source for slice_ in slices}
    unknown = [name for name in sources if name not in known]
    if unknown:
        raise TrainingError(f"--leave-out {unknown[0]}: no such source; there are {', '.join(sorted(known))}")
    return [slice_.source in sources or (_is_divided(slice_) and _part(slice_) == 0) for slice_ in slices]


def check_parts(slices: Sequence[CtSlice], left_out: Sequence[bool]) -> None:
    """Check that the left-out slices can judge a network, and that the others can train one."""
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


def _is_divided(slice_: CtSlice) -> bool:
    return slice_.source == "covid-ct" or slice_.kind == "lesions"


def _part(slice_: CtSlice) -> int:
    return zlib.crc32(f"{slice_.source} {slice_.group}".encode()) % LEFT_OUT_PARTS
