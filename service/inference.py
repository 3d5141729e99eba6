"""A request's way from the bytes of a file to a judged prediction, timed stage by stage."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from service.batcher import Answer, ClosedError, QueueFullError
from service.errors import ClientGoneError, OverloadedError, UnusableImageError
from service.image import Limits, Slice, decode, to_input
from service.metrics import Metrics
from service.predictor import Prediction
from service.schemas import ModelName, OutOfDistribution, PredictionBody, Timings
from service.serving import Model, Serving

R = TypeVar("R")


class Stages:
    """Milliseconds by stage, for the answer, and seconds, for the histogram."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._since = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def branch(self) -> "Stages":
        """A copy for one of several images of a request; its next stage begins now."""
        copy = Stages(self._metrics)
        copy.milliseconds = dict(self.milliseconds)
        return copy

    def end(self, stage: str) -> None:
        """The stage ends now; it began where the last one ended."""
        now = time.perf_counter()
        self.record(stage, now - self._since)
        self._since = now

    def record(self, stage: str, seconds: float) -> None:
        """A stage that was timed elsewhere."""
        self._metrics.stage_seconds.labels(stage=stage).observe(seconds)
        self.milliseconds[stage] = round(seconds * 1000, 3)


@dataclass(frozen=True, slots=True)
class Finding:
    """A prediction, judged by the card's thresholds.

    Attributes:
        ct_slice: uint8 (1, H, W), the slice as it was sent, before it was resized.
        prediction: the network's answer.
        label: one of the card's two labels.
        flagged: whether the image does not look like a chest CT slice.
    """

    ct_slice: Slice
    prediction: Prediction
    label: str
    flagged: bool


async def examine(data: bytes, model: Model, serving: Serving, stages: Stages) -> Finding:
    """Decode, queue, infer, judge, count.

    Args:
        data: the bytes of one image file.
        model: what answers; the caller keeps it in use.
        serving: whose limits and metrics hold.
        stages: is told of decode, queue and inference.

    Raises:
        ServiceError: with the reason; see its kinds.
    """
    loop = asyncio.get_running_loop()
    ct_slice, network_input = await loop.run_in_executor(serving.decoders, _prepare, data, model, serving)
    stages.end("decode")
    return await examine_slice(ct_slice, network_input, model, serving, stages)


async def examine_slice(
    ct_slice: Slice, network_input: Slice, model: Model, serving: Serving, stages: Stages
) -> Finding:
    """The same for a slice that is decoded already.

    Args:
        ct_slice: uint8 (1, H, W), as it was sent.
        network_input: uint8 (1, S, S), as `service.image.to_input` makes it.
        model: see `examine`.
        serving: see `examine`.
        stages: is told of queue and inference.

    Raises:
        ServiceError: with the reason; see its kinds.
    """
    answer = await _infer(model, network_input)
    stages.record("queue", answer.queue_seconds)
    stages.record("inference", answer.run_seconds)
    return _judge(ct_slice, answer.result, model, serving)


async def examine_each(count: int, one: Callable[[int], Coroutine[None, None, R]], model: Model) -> list[R]:
    """Await `one(0)` to `one(count - 1)`, a few at a time, so that one request never fills the queue by itself.

    Returns:
        The results, in order. The first exception ends the rest.
    """
    running = model.predictor.max_batch_size * model.predictor.batches_at_once
    # as many again are decoded meanwhile
    room = asyncio.Semaphore(min(2 * running, model.batcher.max_waiting))

    async def when_there_is_room(index: int) -> R:
        async with room:
            return await one(index)

    tasks = [asyncio.create_task(when_there_is_room(index)) for index in range(count)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def unless_client_leaves(request: Request, work: Coroutine[None, None, R]) -> R:
    """Wait for `work`, but drop it if the client closes its connection first: nobody would read the answer.

    Raises:
        ClientGoneError: the client left first.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("The client left before its answer was ready.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def prediction_body(finding: Finding, model: Model, request_id: str, stages: Stages) -> PredictionBody:
    """The answer to a client."""
    card = model.card
    return PredictionBody(
        request_id=request_id,
        probability=finding.prediction.probability,
        label=finding.label,
        threshold=card.threshold,
        model=ModelName(name=card.name, version=card.version),
        out_of_distribution=OutOfDistribution(
            score=finding.prediction.ood_score, threshold=card.ood_threshold, flagged=finding.flagged
        ),
        timings_milliseconds=Timings(**stages.milliseconds),
    )


def _prepare(data: bytes, model: Model, serving: Serving) -> tuple[Slice, Slice]:
    ct_slice = decode(data, Limits(max_pixels=serving.settings.max_pixels))
    return ct_slice, to_input(ct_slice, model.card.input_size)


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _infer(model: Model, network_input: Slice) -> Answer[Prediction]:
    try:
        return await model.batcher.submit(network_input)
    except QueueFullError:
        raise OverloadedError("The queue is full; try again.", code="queue_full", retry_after_seconds=1) from None
    except ClosedError:
        raise OverloadedError("The service is shutting down.", code="shutting_down", retry_after_seconds=5) from None


def _judge(ct_slice: Slice, prediction: Prediction, model: Model, serving: Serving) -> Finding:
    card, metrics = model.card, serving.metrics
    flagged = prediction.ood_score > card.ood_threshold
    if flagged:
        metrics.ood_flags.inc()
    if flagged and serving.settings.out_of_distribution == "refuse":
        metrics.ood_refusals.inc()
        raise UnusableImageError(
            f"This does not look like a chest CT slice: its score is {prediction.ood_score:.2f}, and the limit is "
            f"{card.ood_threshold:.2f}. Send one axial chest CT slice.",
            code="not_a_chest_ct",
        )
    other = card.labels[1 - card.labels.index(card.positive_label)]
    label = card.positive_label if prediction.probability >= card.threshold else other
    metrics.predictions.labels(label=label).inc()
    metrics.probability.observe(prediction.probability)
    return Finding(ct_slice, prediction, label, flagged)
