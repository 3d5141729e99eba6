"""Loading a model: the chosen file, then warm-up and self-check."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.errors import ModelFileError
from service.model.choice import Choice, WantedPrecision, choose
from service.model.file import LoadedModel, load_model, synthetic_slice
from service.model.hardware import keep_freed_memory, one_thread, reason_of, return_freed_memory
from service.model.predictor import Predictor, sizes_of_batches
from service.processors import usable_processors

_log = logging.getLogger("covidct")


class SelfCheckError(ModelFileError):
    """The network's output for its self-check differs from its card."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options for loading a model.

    Attributes:
        folder: the models folder.
        device: `auto`, `cpu` or `cuda`; `auto` is a GPU if there is one.
        precision: compute precision; `auto` is fp16 on a GPU, and on a CPU the fastest one, measured.
        threads: threads of the network on a CPU; None is the number of usable processors.
        max_batch_size: slices in a batch; None is the default of the device.
    """

    folder: Path
    device: str = "auto"
    precision: WantedPrecision = "auto"
    threads: int | None = None
    max_batch_size: int | None = None


def load_predictor(options: LoadOptions) -> Predictor:
    """Load the model of a models folder, warm it up and check it.

    With `auto` on a CPU, a precision whose self-check fails is logged, and the next fastest one is loaded instead.

    Raises:
        ModelFileError: no model, not the released file, or a failed self-check; one line.
    """
    choice = choose(options.folder, options.device, options.precision)
    ranking = list(choice.milliseconds) or [choice.precision]
    for precision in ranking[:-1]:
        try:
            return _load(options, choice.with_precision(precision))
        except SelfCheckError as error:
            _log.warning("%s; trying the next fastest precision", error)
    return _load(options, choice.with_precision(ranking[-1]))


def _load(options: LoadOptions, choice: Choice) -> Predictor:
    threads = options.threads or usable_processors()
    if choice.device.type == "cpu":
        keep_freed_memory()
    with one_thread():  # OpenMP threads here would slow down those of the predictor
        choice, model = _read_model(options, choice)
    return_freed_memory()
    path = options.folder / choice.file.name
    predictor = Predictor(model, choice, threads, options.max_batch_size)
    try:
        _warm_up(predictor, path)
    except BaseException:
        predictor.close()
        raise
    return predictor


def _read_model(options: LoadOptions, choice: Choice) -> tuple[Choice, LoadedModel]:
    """Read the file, or choose again if the manifest was replaced in between: a release removes the old files last."""
    while True:
        try:
            file = choice.file
            return choice, load_model(options.folder / file.name, choice.device, choice.precision, file.sha256)
        except ModelFileError:
            again = choose(options.folder, options.device, options.precision)
            if again.manifest == choice.manifest:
                raise
            choice = again


def _warm_up(predictor: Predictor, path: Path) -> None:
    """Run the self-check for every batch size, at least twice: TorchScript compiles in the first two runs.

    It runs in the thread that serves single slices, because OpenMP teams belong to threads.
    """
    for size in (1, *sizes_of_batches(predictor.max_batch_size)):
        predictor.submit(partial(_check, predictor, path, size)).result()


def _check(predictor: Predictor, path: Path, size: int) -> None:
    check = predictor.card.self_check
    example = synthetic_slice(check.seed, predictor.card.input_size)
    tolerance = check.tolerance.get(predictor.precision)
    if tolerance is None:
        raise ModelFileError(f"{path}: its card has no self-check tolerance for {predictor.precision}")
    try:
        predictions = predictor.predict_now([example] * size)
    except RuntimeError as error:  # torch's own; the reason is below the trace of its interpreter
        raise SelfCheckError(f"{path}: self-check can't run in {predictor.precision}: {reason_of(error)}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    for prediction in predictions:
        if isinstance(prediction, Exception):
            raise SelfCheckError(f"{path}: self-check failed: {prediction}") from prediction
        if abs(prediction.probability - check.probability) > tolerance:
            raise SelfCheckError(
                f"{path}: self-check failed: probability {prediction.probability:.6f} in {predictor.precision} on "
                f"{predictor.device}, the card says {check.probability:.6f} within {tolerance}"
            )
