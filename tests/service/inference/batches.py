"""Items submitted to a batcher."""

import asyncio

from service.inference.batcher import Batcher


async def submitted(batcher: "Batcher[int, int]", *items: int) -> "list[asyncio.Task[int]]":
    """Tasks that wait for their results, all in the queue or in the running batch."""

    async def result(item: int) -> int:
        return (await batcher.submit(item)).result

    tasks = [asyncio.create_task(result(item)) for item in items]
    await asyncio.sleep(0)  # each runs up to its wait
    return tasks
