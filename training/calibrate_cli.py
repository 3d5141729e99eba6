"""The command `calibrate`: a released model, calibrated to a hospital's own labelled slices."""

import argparse
from datetime import UTC, datetime
from typing import Final, get_args

import numpy as np
import torch

from service.imaging.decode import to_input
from service.model.assess import run_checks
from service.model.card import AnswerName, ModelCard
from service.model.file import Network, load_on_cpu, read_manifest
from training.data.ct_slices import CtSlice, read_labelled
from training.errors import TrainingError
from training.evaluation.own_calibration import Answered, OwnAnswers, calibrate_to, uncalibrated_figures
from training.options import check_paths
from training.release.calibrated_models import write_calibrated
from training.run.progress import progress, say
from training.run.run_folder import check_folder

_PREFERRED: Final = "fp16"
"""The file that answers the slices; answers of the others differ by less than a calibration does."""


def calibrate(options: argparse.Namespace) -> None:
    """Fit calibration and both operating points to labelled slices, print their figures, and write a models folder."""
    check_paths(options, ("models", "labelled"), ())
    check_folder("--out", options.out)
    manifest = read_manifest(options.models)
    file = next((each for each in manifest.files if each.precision == _PREFERRED), manifest.files[0])
    model = load_on_cpu(options.models, file)
    slices = read_labelled(options.labelled)
    own = _answer(model.network, model.card, slices)
    local = calibrate_to(own, datetime.now(UTC).date().isoformat(), options.seed)
    before = uncalibrated_figures(own, model.card.threshold, options.seed)
    for name, figure in local.figures.items():
        released = f", released model {before[name].value:.3f}" if name in before else ""
        print(f"{own.source}, {name}: {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}){released}")
    write_calibrated(options.models, options.out, local, before)
    say(f"written: {options.out}; serve it with COVIDCT_MODELS_DIR={options.out}")


def _answer(network: Network, card: ModelCard, slices: list[CtSlice]) -> OwnAnswers:
    """Ask the network about the slices; those that it refuses are left out, as in the service."""
    rows: list[dict[str, float]] = []
    kept: list[CtSlice] = []
    with torch.inference_mode():
        for each in progress(slices, "answering", "slice"):
            outputs = network(torch.from_numpy(to_input(each.grey[np.newaxis], card.input_size))[None])
            if run_checks({name: float(outputs[name]) for name in card.checks}, card.checks).failed:
                continue
            kept.append(each)
            rows.append({name: float(value) for name, value in outputs.items() if value.numel() == 1})
    if len(kept) < len(slices):
        say(f"{len(slices) - len(kept)} of {len(slices)} slices left out: a check of the picture refuses them")
    if not kept:
        raise TrainingError(f"{slices[0].source}: a check of the picture refuses every slice")
    parts: tuple[AnswerName, ...] = get_args(AnswerName)
    names: tuple[Answered, ...] = parts if parts[0] in rows[0] else ("probability",)
    return OwnAnswers(
        source=", ".join(sorted({each.source for each in kept})),
        answers={name: np.array([row[name] for row in rows]) for name in names},
        labels=np.array([each.label for each in kept], np.int64),
        groups=np.array([f"{each.source} {each.group}" for each in kept], np.str_),
        healthy=np.array([each.finding == "healthy" for each in kept], np.bool_),
    )
