"""Turns the bytes of a file into an assessed prediction, timed by stage."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from service.errors import ErrorCode, OverloadedError
from service.imaging.decode import DecodeLimits, Slice, to_input
from service.inference.batcher import BatchedResult, ClosedError, QueueFullError
from service.inference.served_model import QueuedSlice, ServedModel
from service.inference.service_state import ServiceState
from service.inference.stages import StageTimer
from service.model.assess import Assessment, assess, refusal
from service.model.card import OperatingPoint
from service.model.prediction import NetworkPrediction

R = TypeVar("R")


async def assess_image(
    data: bytes, model: ServedModel, state: ServiceState, stages: StageTimer, point: OperatingPoint | None = None
) -> Assessment:
    """Decode, queue, predict, compare with the thresholds, count.

    Args:
        data: the bytes of one image file.
        model: the model to use; the caller keeps it in use.
        state: its limits and metrics apply.
        stages: records decode, queue and inference.
        point: for the label; None is that of the settings.

    Raises:
        ServiceError: with the reason; see its subclasses.
    """

    async def decoded(size: int) -> Slice:
        return await state.cage.network_input(data, size, _limits(state))

    return await _assess(decoded, model, state, stages, point)


async def assess_and_keep(
    data: bytes, model: ServedModel, state: ServiceState, stages: StageTimer, point: OperatingPoint | None = None
) -> tuple[Slice, Assessment]:
    """Assess like `assess_image`; return the slice in its original size, uint8 (1, H, W), too."""
    slices: list[Slice] = []

    async def decoded(size: int) -> Slice:
        both = await state.cage.decode(data, _limits(state), size)
        slices.append(both.slice_)
        return both.network_input

    assessment = await _assess(decoded, model, state, stages, point)
    return slices[0], assessment


async def assess_slice(
    ct_slice: Slice, model: ServedModel, state: ServiceState, stages: StageTimer, point: OperatingPoint | None = None
) -> Assessment:
    """Resize, queue, predict, compare and count like `assess_image`, for a decoded slice, uint8 (1, H, W)."""

    async def resized(size: int) -> Slice:
        return await asyncio.get_running_loop().run_in_executor(state.threads, to_input, ct_slice, size)

    return await _assess(resized, model, state, stages, point)


def _limits(state: ServiceState) -> DecodeLimits:
    return DecodeLimits(max_pixels=state.settings.max_pixels)


async def run_bounded(count: int, one: Callable[[int], Coroutine[None, None, R]], model: ServedModel) -> list[R]:
    """Await `one(0)` to `one(count - 1)`, a few at a time, so that one request never fills the queue.

    Returns:
        The results, in order. The first exception cancels the rest.
    """
    running = model.predictor.max_batch_size * model.predictor.max_concurrent_batches
    # and the same number is being decoded
    room = asyncio.Semaphore(min(2 * running, model.batcher.max_waiting))

    async def run(index: int) -> R:
        async with room:
            return await one(index)

    tasks = [asyncio.create_task(run(index)) for index in range(count)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _assess(
    read: Callable[[int], Awaitable[Slice]],
    model: ServedModel,
    state: ServiceState,
    stages: StageTimer,
    point: OperatingPoint | None,
) -> Assessment:
    """Assess the network's input that `read` returns for its size; count images without a prediction."""
    with state.metrics.counting_rejections():
        network_input = await read(model.card.input_size)
        stages.finish("decode")
        batched = await infer(model, QueuedSlice(network_input))
        stages.record("queue", batched.queue_seconds)
        stages.record("inference", batched.run_seconds)
        model.statistics.add_success(batched.queue_seconds, batched.run_seconds)
        assessment = assess(batched.result, model.card, point or model.operating_point)
        _count(assessment, state)
        return assessment


async def infer(model: ServedModel, queued: QueuedSlice) -> BatchedResult[NetworkPrediction]:
    """Queue a slice and wait for its prediction.

    Raises:
        ServiceError: the queue is full, the service is shutting down, or the slice has no prediction.
    """
    try:
        with model.statistics.counting_failures():
            return await model.batcher.submit(queued)
    except QueueFullError:
        raise OverloadedError(
            "The queue is full; try again.", code=ErrorCode.QUEUE_FULL, retry_after_seconds=1
        ) from None
    except ClosedError:
        raise OverloadedError(
            "The service is shutting down.", code=ErrorCode.SHUTTING_DOWN, retry_after_seconds=5
        ) from None


def _count(assessment: Assessment, state: ServiceState) -> None:
    """Count an assessment.

    Raises:
        UnusableImageError: a check failed, and the settings refuse such images.
    """
    check, prediction, metrics = assessment.check, assessment.prediction, state.metrics
    if check.reason is not None:
        metrics.ood_flags.inc()
        if state.settings.out_of_distribution == "refuse":
            metrics.ood_refusals.inc()
            raise refusal(check.reason)
    metrics.predictions.labels(label=assessment.label or "none").inc()
    if not check.failed:  # flagged images would distort the drift histograms
        metrics.probability.observe(prediction.probability)
        if prediction.lung_involvement is not None:
            metrics.lung_involvement.observe(prediction.lung_involvement.both)
