"""Calls of the network side by side on a CPU, each with its share of the threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_MOST_LANES: Final = 4


class Lanes:
    """Shares some threads between one to a few calls.

    A convolution on two threads takes more than half of its time on one: two slices side by side, each on one thread,
    are done sooner than one after the other, each on both (measured: 1.1 times the slices a second).

    Args:
        threads: all there are.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.count = min(_MOST_LANES, threads)
        self._others = ThreadPoolExecutor(max_workers=self.count, thread_name_prefix="lane")

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`function` of each of one to `count` items, in order; the calling thread takes the first.

        It ends when all calls have ended; if some raised, it raises what the first of these did.
        """
        share = self._threads // len(items)
        futures = [self._others.submit(_call, function, item, share) for item in items[1:]]
        try:
            first = _call(function, items[0], share)
        finally:
            wait(futures)
        return [first, *(future.result() for future in futures)]

    def close(self) -> None:
        """End its threads."""
        self._others.shutdown()


def _call(function: Callable[[T], R], item: T, threads: int) -> R:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # for the calling thread alone, as OpenMP has it
    return function(item)
