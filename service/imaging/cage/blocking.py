"""The cage for programs without an event loop: one file at a time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.pool import Cage, CageLimits

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Cage, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["BlockingCage", P], T]:
    """Turn a method of `Cage` into one that waits for its result."""

    def run(self: "BlockingCage", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._runner.run(method(self._cage, *args, **kwargs))

    run.__doc__ = method.__doc__
    return run


def _iterating(
    method: Callable[Concatenate[Cage, P], AsyncGenerator[T]],
) -> Callable[Concatenate["BlockingCage", P], Iterator[T]]:
    """Turn a method of `Cage` into one that waits for each of its items."""

    def iterate(self: "BlockingCage", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self._cage, *args, **kwargs)
        try:
            while following := self._runner.run(_following(items)):
                yield following[0]
        finally:
            self._runner.run(_close(items))

    iterate.__doc__ = method.__doc__
    return iterate


async def _following(items: AsyncGenerator[T]) -> list[T]:
    """Return the next item, or nothing after the last one."""
    try:
        return [await anext(items)]
    except StopAsyncIteration:
        return []


async def _close(items: AsyncGenerator[T]) -> None:
    await items.aclose()


class BlockingCage:
    """Decodes files in a worker process that starts with the first one; a context manager.

    Not for a thread that runs an event loop.
    """

    decode = _blocking(Cage.decode)
    network_input = _blocking(Cage.network_input)
    study_slices = _iterating(Cage.study_slices)

    def __init__(self, limits: CageLimits | None = None) -> None:
        self._server = ForkServer()
        self._cage = Cage(self._server, limits)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        self._cage.close()
        self._runner.close()
        self._server.close()
