"""Comparison of a finished run's model with the one in place, and its release."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from packaging.version import InvalidVersion, Version
from sklearn.metrics import roc_auc_score

from service.model.card import MANIFEST_NAME, Interval
from training.data.covid_ct import LABELS
from training.data.tables import read_rows
from training.errors import TrainingError
from training.evaluation.scores import difference_of_auc
from training.models.publish import PREDICTIONS_NAME, copy_model
from training.run.progress import say


@dataclass(frozen=True, slots=True)
class Comparison:
    """Lines to print, and the reason if the new model is not better; None if it is."""

    lines: list[str]
    objection: str | None


class _Row(NamedTuple):
    group: str
    label: int
    probability: float


@dataclass(frozen=True, slots=True)
class _Difference:
    """AUC of two models on the same slices of a source, with the 95 % interval of their difference."""

    slices: int
    new: float
    old: float
    interval: Interval

    def describe(self, new: Path, old: Path) -> str:
        change = f"{self.interval.value:+.3f}, {self.interval.low:+.3f} to {self.interval.high:+.3f}"
        return f"auc {self.old:.3f} in {old}, {self.new:.3f} in {new}, on the same {self.slices} slices ({change})"


def promote(run_model: Path, folder: Path, *, anyway: bool) -> None:
    """Print the comparison with the model in place, and replace that one if the new one is better.

    Args:
        run_model: folder with the model of a finished run.
        folder: models folder that is served.
        anyway: replace it even if the new model is not better.

    Raises:
        TrainingError: the new model is not better and `anyway` was not given, or a file can't be written.
    """
    version = _version(run_model)
    if version is None:
        raise TrainingError(f"{run_model / MANIFEST_NAME}: it names no version, so it is not a finished run's")
    check_version(folder, str(version))
    comparison = compare_models(run_model, folder)
    for line in comparison.lines:
        print(line)
    if comparison.objection and not anyway:
        raise TrainingError(
            f"{folder} is as it was: {comparison.objection}; add --release-anyway to replace its model all the same"
        )
    copy_model(run_model, folder)
    say(f"released into {folder}")


def check_version(folder: Path, version: str) -> None:
    """Check that a version is higher than that of the model in place, if there is one.

    Raises:
        TrainingError: it is not; the message names the next free version.
    """
    in_place = _version(folder)
    if in_place is not None and Version(version) <= in_place:
        following = f"{in_place.major}.{in_place.minor}.{in_place.micro + 1}"
        raise TrainingError(
            f"--release: {folder} has version {in_place}, and {version} is not higher; pass --model-version "
            f"{following} or higher"
        )


def compare_models(new: Path, old: Path) -> Comparison:
    """Compare two models folders by their AUC on the same left-out slices; test decides nothing.

    The new model is better if its mean over the sources is higher, and the 95 % interval of no source's difference is
    below 0. Intervals are over patients.
    """
    if _is_at_chance(new):
        return Comparison([], "the new model is not better than chance on any left-out source")
    if not (old / MANIFEST_NAME).is_file():
        return Comparison([], None)
    first, second = _left_out(new), _left_out(old)
    shared = [
        name for name in first if _has_both_classes(first[name].keys() & second.get(name, {}).keys(), first[name])
    ]
    differences = {name: _difference(first[name], second[name]) for name in shared}
    lines = [f"release: {name}: {difference.describe(new, old)}" for name, difference in differences.items()]
    return Comparison(lines, _objection(differences, old))


def _version(folder: Path) -> Version | None:
    """Read the version of a model from any version of metrics.json; None if it names none."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        return Version(_metrics(folder)["model"]["version"])
    except (KeyError, TypeError, InvalidVersion):
        return None


def _metrics(folder: Path) -> dict[str, Any]:
    try:
        metrics = json.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder / MANIFEST_NAME}: can't read its figures: {error}") from error
    return metrics if isinstance(metrics, dict) else {}


def _is_at_chance(folder: Path) -> bool:
    """Whether no left-out source has an AUC above 0.5 with 95 % confidence."""
    try:
        sources = _metrics(folder)["judgement"]["sources"]
        return all(float(source["figures"]["auc"]["low"]) <= 0.5 for source in sources.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{folder / MANIFEST_NAME}: can't read its figures: {error}") from error


def _left_out(folder: Path) -> dict[str, dict[str, _Row]]:
    """Read the predictions for labelled left-out slices, by source and file."""
    path = folder / PREDICTIONS_NAME
    sources: dict[str, dict[str, _Row]] = {}
    if path.is_file():
        for row in read_rows(path, ("set", "source", "file", "label", "probability")):
            if row["set"] == "left-out" and row["label"]:
                group = row.get("group") or row["file"]
                sources.setdefault(row["source"], {})[row["file"]] = _Row(
                    group, int(row["label"]), float(row["probability"])
                )
    return sources


def _has_both_classes(files: Set[str], rows: Mapping[str, _Row]) -> bool:
    return len({rows[file].label for file in files}) == len(LABELS)


def _difference(new: Mapping[str, _Row], old: Mapping[str, _Row]) -> _Difference:
    files = sorted(new.keys() & old.keys())
    labels = np.array([new[file].label for file in files])
    first, second = (np.array([[rows[file].probability for file in files]]) for rows in (new, old))
    interval = difference_of_auc(first, second, labels, [new[file].group for file in files])
    aucs = [float(roc_auc_score(labels, scores[0])) for scores in (first, second)]
    return _Difference(len(files), aucs[0], aucs[1], interval)


def _objection(differences: Mapping[str, _Difference], old: Path) -> str | None:
    if not differences:
        return f"the model in {old} has no predictions for the same left-out slices, so they can't be compared"
    for name, difference in differences.items():
        if difference.interval.high < 0:
            return f"its AUC on {name} is {difference.new:.3f}, lower than {difference.old:.3f}, beyond chance"
    new = fmean(difference.new for difference in differences.values())
    before = fmean(difference.old for difference in differences.values())
    if new <= before:
        return f"its mean AUC on {', '.join(differences)} is {new:.3f}, not better than {before:.3f}"
    return None
