"""Loading a model: choice of device, precision and file, then warm-up and self-check."""

from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from service.errors import ModelFileError
from service.model.card import Manifest, ManifestFile, Precision
from service.model.file import Artifact, load_model, read_manifest, synthetic_slice
from service.model.hardware import (
    choose_device,
    has_native_bf16,
    has_native_int8,
    keep_freed_memory,
)
from service.model.predictor import Predictor
from service.model.staging import sizes_of_batches
from service.processors import usable_processors

WantedPrecision: TypeAlias = Literal["auto"] | Precision


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options for loading a model.

    Attributes:
        folder: the models folder.
        device: `auto`, `cpu` or `cuda`; `auto` is a GPU if there is one.
        precision: compute precision; for `auto` see `choose_precision`.
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
    """

    manifest: Manifest
    file: ManifestFile
    device: torch.device
    precision: Precision


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
    precision = choose_precision(options.precision, device, manifest)
    return Choice(manifest, choose_file(manifest, precision), device, precision)


def load_predictor(options: LoadOptions) -> Predictor:
    """Load the model of a models folder, warm it up and check it.

    Raises:
        ModelFileError: no model, not the released file, or its answer differs from its card; one line.
    """
    choice = choose(options)
    threads = options.threads or usable_processors()
    if choice.device.type == "cpu":
        torch.set_num_threads(threads)
        keep_freed_memory()
    choice, artifact = _read_model(options, choice)
    path = options.folder / choice.file.name
    predictor = Predictor(
        artifact,
        choice.device,
        choice.precision,
        options.max_batch_size,
        threads,
        choice.manifest,
        choice.manifest.agreement.get(choice.file.name),
    )
    try:
        _warm_up(predictor, path)
    except BaseException:
        predictor.close()
        raise
    return predictor


def choose_precision(wanted: WantedPrecision, device: torch.device, manifest: Manifest) -> Precision:
    """Choose the fastest precision that the device supports and the manifest has a file for.

    `auto` is fp16 on a GPU; on a CPU it is int8, then bf16, where the processor multiplies it in hardware, else fp32.

    Raises:
        ModelFileError: no file supports the wanted precision on this device; one line.
    """
    stored = {file.precision for file in manifest.files}
    if wanted == "int8" and device.type != "cpu":
        raise ModelFileError(f"precision int8: int8 files compute on a CPU, not on {device.type}; use auto")
    if wanted == "auto":
        if device.type == "cuda":
            wanted = "fp16"
        elif "int8" in stored and (has_native_int8() or stored == {"int8"}):
            wanted = "int8"
        else:
            wanted = "bf16" if has_native_bf16(device) else "fp32"
    if ("int8" if wanted == "int8" else "fp16") not in stored:
        raise ModelFileError(
            f"precision {wanted}: no file of the manifest computes in it; stored is {' and '.join(stored)}"
        )
    return wanted


def choose_file(manifest: Manifest, precision: Precision) -> ManifestFile:
    """Choose the file for `precision`: the int8 file for int8, the fp16 file for all others."""
    wanted = "int8" if precision == "int8" else "fp16"
    return next(file for file in manifest.files if file.precision == wanted)


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

    It runs in the threads that serve later, because cuDNN's handles and OpenMP's teams belong to threads.
    """
    sizes = (1, *sizes_of_batches(predictor.max_batch_size))
    concurrent_batches = min(2, predictor.max_concurrent_batches)
    checks = [predictor.submit(partial(_check, predictor, path, size, concurrent_batches)) for size in sizes]
    wait(checks)
    for check in checks:
        check.result()


def _check(predictor: Predictor, path: Path, size: int, concurrent_batches: int) -> None:
    check = predictor.card.self_check
    example = synthetic_slice(check.seed, predictor.card.input_size)
    tolerance = check.tolerance.get(predictor.precision)
    if tolerance is None:
        raise ModelFileError(f"{path}: its card has no self-check tolerance for {predictor.precision}")
    try:
        answers = predictor.predict_now([example] * size, concurrent_batches)
    except RuntimeError as error:  # torch's own; the reason is below the trace of its interpreter
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1][:200]
        raise ModelFileError(f"{path}: self-check can't run in {predictor.precision}: {reason}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    for answer in answers:
        if isinstance(answer, Exception):
            raise ModelFileError(f"{path}: self-check failed: {answer}") from answer
        if abs(answer.probability - check.probability) > tolerance:
            raise ModelFileError(
                f"{path}: self-check failed: probability {answer.probability:.6f} in {predictor.precision} on "
                f"{predictor.device}, the card says {check.probability:.6f} within {tolerance}"
            )
