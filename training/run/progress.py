"""Progress bars and lines on stderr; stdout has only results."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def say(line: str) -> None:
    """Print one line above the progress bars."""
    tqdm.write(line, file=sys.stderr)


def progress(items: Iterable[T], title: str, unit: str) -> "tqdm[T]":
    """Wrap `items` in a progress bar that disappears at the end."""
    return tqdm(items, desc=title, unit=unit, leave=False)
