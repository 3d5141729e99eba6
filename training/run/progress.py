"""What a person sees while the job runs: bars and lines on stderr, so that stdout has results alone."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def say(line: str) -> None:
    """Write one line above the bars."""
    tqdm.write(line, file=sys.stderr)


def progress(items: Iterable[T], title: str, unit: str) -> "tqdm[T]":
    """A bar over `items` that goes away when it is full."""
    return tqdm(items, desc=title, unit=unit, leave=False)
