"""One run of a comparison: a network trained as the job trains it, and its answers; no model file comes of it."""

from pathlib import Path
from typing import Final

import torch
from pydantic import JsonValue, ValidationError

from service.model.card import SplitFingerprint
from training.data.covid_ct import CovidCt, Split
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.calibration import fit_temperature
from training.evaluation.scores import Figures, figures_of
from training.evaluation.thresholds import Threshold, choose_threshold
from training.learning.features import probe_logits
from training.learning.fine_tuning import predict_logits
from training.learning.fit import Fitting, claim, fit
from training.network.slice_network import SliceNetwork
from training.run.atomic_write import write_atomically
from training.run.record import EpochRecord, Record, git_commit

_TRIAL: Final = "trial.json"


class Trial(Record):
    """What a comparison keeps of one run, as trial.json.

    Attributes:
        weights: where its pretrained weights came from.
        reference: what temperature and threshold were chosen on.
        splits: figures of the reference, of test, and of test re-encoded alike, at the threshold.
        seconds: wall time of training.
        test_scores: probabilities of the test split, in its order.
    """

    config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    machine: str
    weights: str
    reference: str
    threshold: Threshold
    splits: dict[str, Figures]
    history: tuple[EpochRecord, ...]
    kept_epoch: int
    seconds: float
    test_scores: tuple[float, ...]


def run_trial(fitting: Fitting, data: CovidCt) -> Trial:
    """The run's own record if it has ended, else that of running it to its end.

    Raises:
        TrainingError: the folder holds another run.
    """
    claim(fitting, data)
    path = fitting.run_folder / _TRIAL
    return _read(path, fitting, data) or _run(path, fitting, data)


def _run(path: Path, fitting: Fitting, data: CovidCt) -> Trial:
    recipe = fitting.recipe
    fitted = fit(fitting, data)

    reference = fitted.reference
    temperature = fit_temperature(reference.logits, reference.split.labels) if recipe.calibrate else 1.0
    splits = {"test": data.test, "reencoded": altered(data.test, ALTERATIONS["reencoded"])}
    logits = {name: _logits(fitting, fitted.network, split) for name, split in splits.items()}
    splits |= {reference.name: reference.split}
    logits |= {reference.name: reference.logits}
    answers = {name: torch.softmax(each / temperature, 1)[:, 1] for name, each in logits.items()}
    threshold = choose_threshold(answers[reference.name], reference.split.labels, recipe.threshold_rule, reference.name)
    trial = Trial(
        config=recipe.model_dump(mode="json"),
        data=data.fingerprints(),
        git_commit=git_commit(),
        machine=str(fitting.machine),
        weights=fitted.source,
        reference=reference.name,
        threshold=threshold,
        splits={
            name: figures_of(answers[name], split.labels, threshold.value, recipe.seed)
            for name, split in splits.items()
        },
        history=tuple(fitted.tuning.history),
        kept_epoch=fitted.tuning.best.epoch,
        seconds=fitted.probe_seconds + sum(record.seconds for record in fitted.tuning.history),
        test_scores=tuple(answers["test"].tolist()),
    )
    text = trial.model_dump_json(indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))
    return trial


def _logits(fitting: Fitting, network: SliceNetwork, split: Split) -> torch.Tensor:
    """In fp32; of a network whose convolutions were not trained, by way of features that other seeds may have left."""
    recipe, machine = fitting.recipe, fitting.machine.exact()
    if recipe.probe and not recipe.epochs:
        return probe_logits(network, split, recipe, machine, fitting.cache)
    return predict_logits(network, split, recipe, machine)


def _read(path: Path, fitting: Fitting, data: CovidCt) -> Trial | None:
    """The record of a run that has ended; None where there is none of this recipe, data and version."""
    try:
        trial = Trial.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None
    same_data = trial.data == data.fingerprints()
    return trial if same_data and trial.config == fitting.recipe.model_dump(mode="json") else None
