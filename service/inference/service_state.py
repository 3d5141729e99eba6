"""State of the running service: the current model, and everything that outlives a model."""

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from service.errors import MalformedRequestError, ModelFileError, NotReadyError
from service.imaging.cage.cage import Cage
from service.imaging.cage.ending import Ending
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.limits import CageLimits
from service.inference.running_clock import RunningClock
from service.inference.served_model import ServedModel
from service.metrics import Metrics
from service.model.hardware import return_freed_memory
from service.model.loading import LoadOptions, load_predictor
from service.model.predictor import Predictor
from service.processors import usable_processors
from service.settings import Settings

_RETURN_MEMORY_SECONDS: Final = 30.0
"""Time after which memory of large uploads returns to the kernel, although torch's allocator keeps it for slices."""


def load(settings: Settings) -> Predictor:
    """Load the model that the settings name.

    Raises:
        ModelFileError: see `load_predictor`; or the model lacks the operating point of the settings.
    """
    options = LoadOptions(
        folder=settings.models_dir,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        max_batch_size=settings.batch_max_size,
    )
    predictor = load_predictor(options)
    try:
        predictor.card.operating_point(settings.operating_point)
    except MalformedRequestError as error:
        predictor.close()
        raise ModelFileError(f"COVIDCT_OPERATING_POINT: {error.detail}") from error
    return predictor


class ServiceState:
    """The current model, settings, metrics and decoders.

    Attributes:
        settings: the operator's settings.
        metrics: the application's metrics.
        cage: decodes images, in as many processes as processors.
        threads: for work that would block the event loop.
        clock: running time of the process, to find stuck batches.
        draining: whether the service is about to end: it still serves requests, and reports that it is not ready.
    """

    def __init__(self, settings: Settings, metrics: Metrics, fork_server: ForkServer | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.threads = ThreadPoolExecutor(usable_processors(), thread_name_prefix="worker")
        self._fork_server, self._owns_fork_server = fork_server or ForkServer(), fork_server is None
        limits = CageLimits(settings.decode_seconds, settings.decode_memory_bytes)
        self.cage = Cage(self._fork_server, limits, usable_processors(), self._count_ended_decode)
        self.draining = False
        self.clock = RunningClock()
        self._background: list[asyncio.Task[None]] = []
        self._model: ServedModel | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        metrics.add_refresher(self._refresh_gauges)

    async def start(self, predictor: Predictor | None) -> None:
        """Start the decoders and serve `predictor`, or the model of the settings if it is None.

        Raises:
            OSError: the decoders can't be started.
        """
        await self.cage.start()
        self._background = [
            asyncio.create_task(self.clock.run(), name="running clock"),
            asyncio.create_task(_return_memory(), name="return memory"),
        ]
        if predictor is None:
            predictor = await asyncio.to_thread(load, self.settings)
        self.take(predictor)

    def take(self, predictor: Predictor) -> None:
        """Serve `predictor` from now on; running requests keep the previous model, closed after the last one."""
        previous, model = self._model, ServedModel(predictor, self.metrics, self.settings, self.clock)
        model.batcher.start()
        self._model = model
        manifest = predictor.choice.manifest
        info = predictor.description | {"device": predictor.device.type}
        self.metrics.set_model_info(
            info, predictor.card.labels, manifest.probability_shares, manifest.lung_involvement_shares
        )
        if previous is not None:
            task = asyncio.create_task(previous.retire(), name="retire")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def stop(self) -> None:
        """End the model and the threads."""
        ending = [*self._retiring, *self._background]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        model, self._model = self._model, None
        if model is not None:
            await model.close()
        self.cage.close()
        if self._owns_fork_server:
            self._fork_server.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    @property
    def is_loaded(self) -> bool:
        """Whether there is a model, healthy or not."""
        return self._model is not None

    @property
    def is_healthy(self) -> bool:
        """Whether the service can predict now."""
        return self._model is not None and self._model.is_healthy and self.cage.is_healthy

    @property
    def is_ready(self) -> bool:
        """Whether new requests should be sent here: the service can predict and is not draining."""
        return self.is_healthy and not self.draining

    @property
    def device_lost(self) -> bool:
        """Whether only a new process can predict again."""
        return self._model is not None and self._model.predictor.device_lost

    @contextmanager
    def model(self) -> Iterator[ServedModel]:
        """Yield the current model, kept while the context lasts, even if a reload replaces it.

        Raises:
            NotReadyError: no model is ready.
        """
        model = self._model
        if model is None or not model.is_healthy:
            raise NotReadyError("No model is ready; try again.", retry_after_seconds=1)
        with model.in_use():
            yield model

    def _count_ended_decode(self, ending: Ending) -> None:
        self.metrics.ended_decodes.labels(reason=ending).inc()

    def _refresh_gauges(self) -> None:
        self.metrics.queue_depth.set(0 if self._model is None else self._model.batcher.waiting())
        self.metrics.ready.set(self.is_ready)


async def _return_memory() -> None:
    while True:
        await asyncio.sleep(_RETURN_MEMORY_SECONDS)
        gc.collect()  # errors and their frames, which hold uploads, are in cycles
        return_freed_memory()
