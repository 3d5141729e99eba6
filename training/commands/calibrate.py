"""The command `calibrate`: a released model, calibrated to a hospital's labelled slices."""

import argparse
from datetime import UTC, datetime
from typing import Final, get_args

import numpy as np
import torch

from service.imaging.decode import to_input
from service.model.card import AnswerName
from service.model.file import LoadedModel, load_on_cpu, read_manifest
from training.commands.options import check_paths
from training.data.ct_slices import CtSlice, read_labelled
from training.errors import TrainingError
from training.evaluation.scores import written
from training.models.calibrated_models import write_calibrated
from training.models.file_scores import find_refused, predict_file
from training.models.local_calibration import (
    LocalPredictions,
    ProbabilityName,
    calibrate_to,
    uncalibrated_figures,
)
from training.run.progress import say, warn
from training.run.run_folder import check_folder

_PREFERRED: Final = "fp16"
"""Precision of the file that predicts; the files differ by less than a calibration changes."""


def run(options: argparse.Namespace) -> None:
    """Fit calibration and both operating points to labelled slices, print their figures, and write a models folder."""
    check_paths(options, ("models", "labelled"), ())
    check_folder("--out", options.out)
    manifest = read_manifest(options.models)
    file = next((file for file in manifest.files if file.precision == _PREFERRED), manifest.files[0])
    model = load_on_cpu(options.models, file)
    predictions = _predict(model, read_labelled(options.labelled))
    local = calibrate_to(predictions, datetime.now(UTC).date().isoformat(), options.seed)
    before = uncalibrated_figures(predictions, model.card.threshold, options.seed)
    for name, figure in local.figures.items():
        released = f", released model {before[name].value:.3f}" if name in before else ""
        print(f"{local.source}, {name}: {written(figure)}{released}")
    if local.figures["log_loss"].value >= before["log_loss"].value:
        warn(
            f"on patients whom the fit has not seen, it is no better than the released model (log loss "
            f"{local.figures['log_loss'].value:.3f}, released {before['log_loss'].value:.3f}); use more patients"
        )
    write_calibrated(options.models, options.out, local, before)
    say(f"written: {options.out}; serve it with COVIDCT_MODELS_DIR={options.out}")


def _predict(model: LoadedModel, slices: list[CtSlice]) -> LocalPredictions:
    """Run the network on the slices; refused ones are left out, as in the service."""
    size = model.card.input_size
    images = torch.from_numpy(np.stack([to_input(slice_.grey[np.newaxis], size) for slice_ in slices]))
    outputs = predict_file(model, images, "predicting", batch=1)
    rows = np.flatnonzero(~find_refused(model.card, outputs))
    kept = [slices[row] for row in rows]
    if len(kept) < len(slices):
        say(f"{len(slices) - len(kept)} of {len(slices)} slices left out, which the checks refuse")
    if not kept:
        raise TrainingError(f"{slices[0].source}: the checks refuse every slice")
    factors: tuple[AnswerName, ...] = get_args(AnswerName)
    names: tuple[ProbabilityName, ...] = factors if factors[0] in outputs else ("probability",)
    return LocalPredictions(
        source=", ".join(sorted({slice_.source for slice_ in kept})),
        probabilities={name: outputs[name][rows] for name in names},
        labels=np.array([slice_.label for slice_ in kept], np.int64),
        groups=np.array([f"{slice_.source} {slice_.group}" for slice_ in kept], np.str_),
        healthy=np.array([slice_.finding == "healthy" for slice_ in kept], np.bool_),
    )
