"""Predicts for the slices of a study with a share of the queue."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from service.api_study import StudyProgress
from service.errors import ErrorCode, ServiceError
from service.inference.pipeline import infer
from service.inference.served_model import QueuedSlice, ServedModel
from service.inference.service_state import ServiceState
from service.model.assess import checked
from service.model.prediction import NetworkPrediction
from service.model.study import Study, StudySeries

_RETRY_SECONDS: Final = 0.1
"""Pause of a study while single slices fill the queue."""


async def predict_slices(
    study: Study,
    model: ServedModel,
    state: ServiceState,
    report: Callable[[StudyProgress], object] = lambda _: None,
) -> None:
    """Predict for every wanted slice of a study.

    The slices of all studies together hold a share of the queue that the machine is just busy with, so that a single
    slice waits for one of them at most.

    Args:
        study: as planned; its slices get their answers.
        model: to use; the caller keeps it in use.
        state: its metrics count.
        report: called after each slice.

    Raises:
        ServiceError: the service is shutting down, or no slice could be read.
        UnusableImageError: no slice has lungs.
    """
    wanted = list(study.to_read())
    began, done = time.monotonic(), 0

    async def one(series: StudySeries, index: int) -> None:
        nonlocal done
        slice_ = series.slices[index]
        try:
            slice_.answer = await _predict(series, index, model)
        finally:
            model.study_room.release()
        done += 1
        seconds_left = (time.monotonic() - began) / done * (len(wanted) - done)
        report(StudyProgress(done=done, of=len(wanted), seconds_left=seconds_left))

    tasks: list[asyncio.Task[None]] = []
    try:
        for series, index in wanted:
            await model.study_room.acquire()
            tasks.append(asyncio.create_task(one(series, index)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    _count(study, state)
    study.check_lungs()


async def _predict(series: StudySeries, index: int, model: ServedModel) -> NetworkPrediction | ServiceError:
    queued = QueuedSlice(series.slices[index].take_input(), series.is_beyond_lungs(index))
    while True:
        try:
            return checked((await infer(model, queued)).result, model.card)
        except ServiceError as error:
            if error.code == ErrorCode.QUEUE_FULL:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if error.code == ErrorCode.SHUTTING_DOWN:
                raise
            return error


def _count(study: Study, state: ServiceState) -> None:
    """Count the slices of a study by outcome."""
    for series in study.series:
        for slice_ in series.slices:
            outcome = slice_.reason or ("read" if slice_.prediction else "not_read")
            state.metrics.study_slices.labels(outcome=outcome).inc()
    for other in study.others:
        state.metrics.study_slices.labels(outcome="skipped" if other.is_companion else "failed").inc()
