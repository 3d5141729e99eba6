"""Tasks that read the files of a study, a few at a time."""

import asyncio
from collections.abc import Coroutine
from typing import Final

_FILES_AT_ONCE: Final = 4
"""Maximum files of a study that are read at the same time; together they have at most the size of a body."""


class FileTasks:
    """Tasks that each read a file, small files several at a time and large ones alone.

    Args:
        max_bytes: of the files that are read at the same time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._room = asyncio.Semaphore(_FILES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, reading: Coroutine[None, None, None], size: int) -> None:
        """Start to read a file of `size` bytes as soon as there is room for it; raise the error of an earlier one."""
        places = min(_FILES_AT_ONCE, 1 + _FILES_AT_ONCE * size // self._max_bytes)
        try:
            for _ in range(places):
                await self._room.acquire()
            self._raise_errors()
        except BaseException:
            reading.close()
            raise
        task = asyncio.create_task(reading)
        task.add_done_callback(lambda _: self._free(places))
        self._tasks.add(task)

    async def wait(self) -> None:
        """Wait until all files are read; raise the first error."""
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _free(self, places: int) -> None:
        for _ in range(places):
            self._room.release()

    def _raise_errors(self) -> None:
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        for task in done:
            task.result()
