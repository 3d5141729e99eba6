"""The model that is served: its queue, its health, and how another takes its place."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Depends, Request

from service.batcher import Batcher
from service.errors import OverloadedError
from service.image import Slice
from service.metrics import Metrics
from service.predictor import Prediction, Predictor, load_predictor
from service.processor import usable_processors
from service.settings import Settings

_CLOSE_SECONDS: Final = 5.0
"""For the batch that is running; by then the web server has answered or given up every request in flight."""


class Model:
    """A loaded predictor with the queue in front of it, and a count of those who use it."""

    def __init__(self, predictor: Predictor, metrics: Metrics, settings: Settings) -> None:
        async def run(slices: Sequence[Slice], among: int) -> Sequence[Prediction | Exception]:
            metrics.batch_size.observe(len(slices))
            return await predictor.predict(slices, among)

        self.predictor = predictor
        self.card = predictor.card
        self.batcher: Batcher[Slice, Prediction] = Batcher(
            run,
            max_size=predictor.max_batch_size,
            max_waiting=settings.queue_max_length,
            at_once=predictor.batches_at_once,
        )
        self._stuck_after_seconds = settings.request_timeout_seconds
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def healthy(self) -> bool:
        """Whether slices get answers: the worker lives, and no batch is stuck."""
        is_stuck = self.batcher.running_seconds >= self._stuck_after_seconds
        return self.batcher.alive and not is_stuck and not self.predictor.device_lost

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model's queue open for as long as the context lasts."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self) -> None:
        """End it once nobody uses it any more."""
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Answer what waits, within a time, and end its threads."""
        await self.batcher.close(_CLOSE_SECONDS)
        self.predictor.close()


class Serving:
    """What the routes work with: the model of the moment, and everything that outlives it.

    Attributes:
        settings: what the operator chose.
        metrics: the application's metrics.
        decoders: threads that decode; as many as processors, since each may hold several copies of an image.
        draining: set once the service is about to end: it still answers, and says that it is not ready.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.decoders = ThreadPoolExecutor(usable_processors(), thread_name_prefix="decoder")
        self.draining = False
        self._model: Model | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        metrics.on_observe(self._show)

    async def start(self, predictor: Predictor | None) -> None:
        """Serve `predictor`; None loads the settings' one."""
        if predictor is None:
            predictor = await asyncio.to_thread(load_predictor, self.settings)
        self.take(predictor)

    def take(self, predictor: Predictor) -> None:
        """Serve `predictor` from now on; running requests keep the previous model, which ends after the last one."""
        previous, model = self._model, Model(predictor, self.metrics, self.settings)
        model.batcher.start()
        self._model = model
        self.metrics.show_model(predictor)
        if previous is not None:
            task = asyncio.create_task(previous.retire(), name="retire")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def stop(self) -> None:
        """Serve nothing any more."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        model, self._model = self._model, None
        if model is not None:
            await model.close()
        self.decoders.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here: predictions get answers, and the service is not draining."""
        return self.healthy and not self.draining

    @property
    def healthy(self) -> bool:
        """Whether predictions get answers now."""
        return self._model is not None and self._model.healthy

    @property
    def started(self) -> bool:
        """Whether there is a model, healthy or not."""
        return self._model is not None

    @property
    def device_lost(self) -> bool:
        """Whether only a new process can compute again."""
        return self._model is not None and self._model.predictor.device_lost

    @contextmanager
    def model(self) -> Iterator[Model]:
        """The model of the moment, kept for as long as the context lasts, even where another takes over meanwhile.

        Raises:
            OverloadedError: there is none that answers now.
        """
        model = self._model
        if model is None or not model.healthy:
            raise OverloadedError(
                "There is no model that answers now.", code="not_ready", title="Not ready", retry_after_seconds=1
            )
        with model.in_use():
            yield model

    def _show(self) -> None:
        self.metrics.queue_depth.set(0 if self._model is None else self._model.batcher.waiting())
        self.metrics.ready.set(self.ready)


async def serving_of(request: Request) -> Serving:
    """The application's `Serving`, whether there is a model or not."""
    serving = request.app.state.serving
    assert isinstance(serving, Serving)  # noqa: S101 - create_app puts it there
    return serving


AnyServing = Annotated[Serving, Depends(serving_of)]


async def ready_serving(serving: AnyServing) -> Serving:
    """The application's `Serving`, or a 503 while it has no model that answers."""
    with serving.model():
        return serving


Ready = Annotated[Serving, Depends(ready_serving)]
