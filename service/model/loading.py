"""Loading a model: choice of device, precision and file, then warm-up and self-check."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from service.errors import ModelFileError
from service.model.batches import sizes_of_batches
from service.model.card import FilePrecision, Manifest, ManifestFile, Precision
from service.model.file import Artifact, load_model, read_manifest, synthetic_slice
from service.model.hardware import (
    choose_device,
    has_int8,
    has_native_bf16,
    keep_freed_memory,
    one_thread,
    reason_of,
    return_freed_memory,
)
from service.model.predictor import Predictor
from service.model.speed import measure_precisions
from service.processors import usable_processors

WantedPrecision: TypeAlias = Literal["auto"] | Precision

_log = logging.getLogger("covidct")


class SelfCheckError(ModelFileError):
    """A network does not answer its self-check as its card says."""


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The file of a models folder that is used here, and how it computes.

    Attributes:
        manifest: of the folder.
        file: one of its files.
        device, precision: where and in what the network computes.
        milliseconds: of one convolution in each precision that was compared, the fastest first; empty if there was no
            choice.
    """

    manifest: Manifest
    file: ManifestFile
    device: torch.device
    precision: Precision
    milliseconds: Mapping[Precision, float]


def choose(options: LoadOptions) -> Choice:
    """Choose device, precision and file, without loading the model.

    Raises:
        ModelFileError: no manifest, no such device, or no file for the precision; one line.
    """
    try:
        device = choose_device(options.device)
    except ValueError as error:
        raise ModelFileError(f"device {options.device}: {error}") from error
    manifest = read_manifest(options.folder)
    possible = possible_precisions(options.precision, device, manifest)
    milliseconds: dict[Precision, float] = {}
    if len(possible) > 1:
        measured = measure_precisions(tuple(possible))
        milliseconds = dict(sorted(measured.items(), key=lambda item: item[1]))
    precision = next(iter(milliseconds), possible[0])
    return Choice(manifest, choose_file(manifest, precision), device, precision, milliseconds)


def load_predictor(options: LoadOptions) -> Predictor:
    """Load the model of a models folder, warm it up and check it.

    With `auto` on a CPU, a precision whose self-check fails is logged, and the next fastest one is loaded instead.

    Raises:
        ModelFileError: no model, not the released file, or its answer differs from its card; one line.
    """
    choice = choose(options)
    ranking = list(choice.milliseconds) or [choice.precision]
    for precision in ranking[:-1]:
        try:
            return _load(options, _with_precision(choice, precision))
        except SelfCheckError as error:
            _log.warning("%s; the next fastest precision is tried", error)
    return _load(options, _with_precision(choice, ranking[-1]))


def possible_precisions(wanted: WantedPrecision, device: torch.device, manifest: Manifest) -> list[Precision]:
    """List the precisions among which the fastest is taken: those of `auto`, or the wanted one alone.

    `auto` is fp16 on a GPU; on a CPU it is what the manifest has a file for and the processor has instructions for.

    Raises:
        ModelFileError: no file supports the wanted precision on this device; one line.
    """
    stored = {file.precision for file in manifest.files}
    if wanted == "int8" and device.type != "cpu":
        raise ModelFileError(f"precision int8: int8 files compute on a CPU, not on {device.type}; use auto")
    if wanted == "auto" and device.type == "cpu":
        supported: dict[Precision, bool] = {"int8": has_int8(), "bf16": has_native_bf16(device), "fp32": True}
        possible = [each for each in supported if supported[each] and _stored_as(each) in stored]
        wanted = "fp32"  # named if none is possible
    else:
        wanted = "fp16" if wanted == "auto" else wanted
        possible = [wanted] if _stored_as(wanted) in stored else []
    if not possible:
        raise ModelFileError(
            f"precision {wanted}: no file of the manifest computes in it; stored is {' and '.join(stored)}"
        )
    return possible


def _stored_as(precision: Precision) -> FilePrecision:
    return "int8" if precision == "int8" else "fp16"


def _with_precision(choice: Choice, precision: Precision) -> Choice:
    return replace(choice, precision=precision, file=choose_file(choice.manifest, precision))


def choose_file(manifest: Manifest, precision: Precision) -> ManifestFile:
    """Choose the file for `precision`: the int8 file for int8, the fp16 file for all others."""
    return next(file for file in manifest.files if file.precision == _stored_as(precision))


def _load(options: LoadOptions, choice: Choice) -> Predictor:
    threads = options.threads or usable_processors()
    if choice.device.type == "cpu":
        keep_freed_memory()
    with one_thread():  # a team of OpenMP's threads here would slow the predictor's down
        choice, artifact = _read_model(options, choice)
    return_freed_memory()
    path = options.folder / choice.file.name
    predictor = Predictor(
        artifact,
        choice.device,
        choice.precision,
        options.max_batch_size,
        threads,
        choice.manifest,
        choice.manifest.agreement.get(choice.file.name),
        choice.milliseconds,
    )
    try:
        _warm_up(predictor, path)
    except BaseException:
        predictor.close()
        raise
    return predictor


def _read_model(options: LoadOptions, choice: Choice) -> tuple[Choice, Artifact]:
    """Read the file, or choose again if the manifest was replaced in between: a release removes the old files last."""
    while True:
        try:
            file = choice.file
            return choice, load_model(options.folder / file.name, choice.device, choice.precision, file.sha256)
        except ModelFileError:
            again = choose(options)
            if again.manifest == choice.manifest:
                raise
            choice = again


def _warm_up(predictor: Predictor, path: Path) -> None:
    """Run the self-check for every batch size, at least twice: TorchScript compiles in the first two runs.

    It runs in the thread that serves a slice alone, because OpenMP's teams belong to threads.
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
        answers = predictor.predict_now([example] * size)
    except RuntimeError as error:  # torch's own; the reason is below the trace of its interpreter
        raise SelfCheckError(f"{path}: self-check can't run in {predictor.precision}: {reason_of(error)}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    for answer in answers:
        if isinstance(answer, Exception):
            raise SelfCheckError(f"{path}: self-check failed: {answer}") from answer
        if abs(answer.probability - check.probability) > tolerance:
            raise SelfCheckError(
                f"{path}: self-check failed: probability {answer.probability:.6f} in {predictor.precision} on "
                f"{predictor.device}, the card says {check.probability:.6f} within {tolerance}"
            )
