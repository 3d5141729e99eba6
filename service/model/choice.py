"""Choice of device, precision and file from a models folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from service.errors import ModelFileError
from service.model.card import FileAgreement, FilePrecision, Manifest, ManifestFile, Precision
from service.model.file import read_manifest
from service.model.hardware import choose_device, has_int8, has_native_bf16
from service.model.speed import measure_precisions

WantedPrecision: TypeAlias = Literal["auto"] | Precision


@dataclass(frozen=True, slots=True)
class Choice:
    """Choice of file, device and precision.

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

    def with_precision(self, precision: Precision) -> "Choice":
        """Return the choice of another precision, with its file."""
        return replace(self, precision=precision, file=choose_file(self.manifest, precision))

    @property
    def agreement(self) -> FileAgreement | None:
        """Agreement of the file's predictions with the published test results; None if unknown."""
        return self.manifest.agreement.get(self.file.name)


def choose(folder: Path, device: str = "auto", precision: WantedPrecision = "auto") -> Choice:
    """Choose device, precision and file, without loading the model.

    Args:
        folder: the models folder.
        device: `auto`, `cpu` or `cuda`; `auto` is a GPU if there is one.
        precision: `auto` is fp16 on a GPU, and on a CPU the fastest one, measured.

    Raises:
        ModelFileError: no manifest, no such device, or no file for the precision; one line.
    """
    try:
        chosen = choose_device(device)
    except ValueError as error:
        raise ModelFileError(f"device {device}: {error}") from error
    manifest = read_manifest(folder)
    possible = possible_precisions(precision, chosen, manifest)
    milliseconds: dict[Precision, float] = {}
    if len(possible) > 1:
        measured = measure_precisions(tuple(possible))
        milliseconds = dict(sorted(measured.items(), key=lambda item: item[1]))
    fastest = next(iter(milliseconds), possible[0])
    return Choice(manifest, choose_file(manifest, fastest), chosen, fastest, milliseconds)


def possible_precisions(wanted: WantedPrecision, device: torch.device, manifest: Manifest) -> list[Precision]:
    """List the precisions to choose the fastest from: those of `auto`, or only the wanted one.

    `auto` is fp16 on a GPU; on a CPU it is what the manifest has a file for and the processor has instructions for.

    Raises:
        ModelFileError: no file supports the wanted precision on this device; one line.
    """
    stored = {file.precision for file in manifest.files}
    if wanted == "int8" and device.type != "cpu":
        raise ModelFileError(f"precision int8: int8 files compute on a CPU, not on {device.type}; use auto")
    if wanted == "auto" and device.type == "cpu":
        supported: dict[Precision, bool] = {"int8": has_int8(), "bf16": has_native_bf16(device), "fp32": True}
        possible = [name for name in supported if supported[name] and _stored_as(name) in stored]
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


def choose_file(manifest: Manifest, precision: Precision) -> ManifestFile:
    """Choose the file for `precision`: the int8 file for int8, else the fp16 file."""
    return next(file for file in manifest.files if file.precision == _stored_as(precision))
