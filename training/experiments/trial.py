"""One run of a comparison: a network trained like a release, and its answers. It writes no model file."""

from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError

from training.data.covid_ct import CovidCt, Split
from training.evaluation.alterations import altered, reencode
from training.evaluation.calibration import fit_temperature
from training.evaluation.scores import Scores, score
from training.evaluation.thresholds import Threshold, choose_threshold
from training.learning.features import predict_logits, probe_logits
from training.learning.fit import FitSettings, claim, fit
from training.network.slice_network import SliceNetwork
from training.run.record import EpochRecord, Provenance

_TRIAL: Final = "trial.json"


class Trial(Provenance):
    """Record of one run, as trial.json.

    Attributes:
        weights: source of the pretrained weights.
        reference: slices on which temperature and threshold were chosen.
        splits: scores of the reference, of test, and of test re-encoded, at the threshold.
        seconds: wall time of training.
        test_scores: probabilities of the test split, in its order.
    """

    weights: str
    reference: str
    threshold: Threshold
    splits: dict[str, Scores]
    history: tuple[EpochRecord, ...]
    kept_epoch: int
    seconds: float
    test_scores: tuple[float, ...]


def run_trial(settings: FitSettings, data: CovidCt) -> Trial:
    """Read the record of a finished run, or run it to its end.

    Raises:
        TrainingError: the folder belongs to another run.
    """
    claim(settings, data)
    path = settings.run_folder / _TRIAL
    provenance = settings.provenance(data.fingerprints())
    return _read(path, provenance) or _run(path, settings, data, provenance)


def _run(path: Path, settings: FitSettings, data: CovidCt, provenance: Provenance) -> Trial:
    recipe = settings.recipe
    fitted = fit(settings, data)
    reference = fitted.reference
    temperature = fit_temperature(reference.logits, reference.split.labels) if recipe.calibrate else 1.0
    splits = {reference.name: reference.split, "test": data.test, "reencoded": altered(data.test, reencode)}
    logits = {name: _logits(settings, fitted.network, splits[name]) for name in ("test", "reencoded")}
    logits[reference.name] = reference.logits
    answers = {name: torch.softmax(each / temperature, 1)[:, 1] for name, each in logits.items()}
    threshold = choose_threshold(answers[reference.name], reference.split.labels, recipe.threshold_rule, reference.name)
    trial = Trial(
        **dict(provenance),
        weights=fitted.source,
        reference=reference.name,
        threshold=threshold,
        splits={
            name: score(answers[name], split.labels, threshold.value, recipe.seed) for name, split in splits.items()
        },
        history=tuple(fitted.history),
        kept_epoch=fitted.kept_epoch,
        seconds=fitted.probe_seconds + fitted.epoch_seconds,
        test_scores=tuple(answers["test"].tolist()),
    )
    trial.write(path)
    return trial


def _logits(settings: FitSettings, network: SliceNetwork, split: Split) -> torch.Tensor:
    """Compute logits in fp32. Without fine-tuning, other seeds have the same features, which come from the cache."""
    recipe, machine = settings.recipe, settings.machine.without_autocast()
    if recipe.fine_tuning:
        return predict_logits(network, split, machine, recipe.network.input_size)
    return probe_logits(network, split, machine, recipe.network.input_size, settings.cache)


def _read(path: Path, provenance: Provenance) -> Trial | None:
    """Read the record of a finished run; None if there is none with this recipe and data."""
    try:
        trial = Trial.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None
    return trial if (trial.data, trial.config) == (provenance.data, provenance.config) else None
