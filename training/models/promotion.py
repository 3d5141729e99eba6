"""Comparison of a finished run's model with the one in place, and its release."""

import json
from collections.abc import Mapping
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


class _Row(NamedTuple):
    group: str
    label: int
    probability: float


class _Aucs(NamedTuple):
    """AUC of two models on the same slices of a source, with the 95 % interval of its change."""

    slices: int
    new: float
    old: float
    change: Interval


def promote(run_model: Path, folder: Path, *, anyway: bool) -> None:
    """Print the comparison with the model in place, and replace that one if the new one is better, or `anyway`.

    Raises:
        TrainingError: the new model is not better and `anyway` was not given, or a file can't be written.
    """
    check_version(folder, _metrics(run_model)["model"]["version"])
    objection = _objection(run_model, folder)
    if objection and not anyway:
        raise TrainingError(
            f"{folder} is as it was: {objection}; add --release-anyway to replace its model all the same"
        )
    copy_model(run_model, folder)
    say(f"released into {folder}")


def check_version(folder: Path, version: str) -> None:
    """Check that a version is higher than that of the model in place, if there is one."""
    in_place = _version(folder)
    if in_place is not None and Version(version) <= in_place:
        following = f"{in_place.major}.{in_place.minor}.{in_place.micro + 1}"
        raise TrainingError(
            f"--release: {folder} has version {in_place}, and {version} is not higher; pass --model-version "
            f"{following} or higher"
        )


def _objection(new: Path, old: Path) -> str | None:
    """Print the AUC of two models on the same left-out slices; return the reason if the new one is not better.

    The new model is better if its mean over the sources is higher, and the 95 % interval of no source's difference is
    below 0. Intervals are over patients. Test decides nothing.
    """
    if not _metrics(new)["learned"]:
        return "the new model is not better than chance on any left-out source"
    if not (old / MANIFEST_NAME).is_file():
        return None
    first, second = _left_out(new), _left_out(old)
    aucs: dict[str, _Aucs] = {}
    for name in first:
        compared = _compare(first[name], second.get(name, {}))
        if compared is not None:
            aucs[name] = compared
            change = f"{compared.change.value:+.3f}, {compared.change.low:+.3f} to {compared.change.high:+.3f}"
            on = f"on the same {compared.slices} slices ({change})"
            print(f"release: {name}: auc {compared.old:.3f} in {old}, {compared.new:.3f} in {new}, {on}")
    if not aucs:
        return f"the model in {old} has no predictions for the same left-out slices, so they can't be compared"
    for name, auc in aucs.items():
        if auc.change.high < 0:
            return f"its AUC on {name} is {auc.new:.3f}, lower than {auc.old:.3f}, beyond chance"
    after, before = fmean(auc.new for auc in aucs.values()), fmean(auc.old for auc in aucs.values())
    return None if after > before else f"its mean AUC on {', '.join(aucs)} is {after:.3f}, not better than {before:.3f}"


def _compare(new: Mapping[str, _Row], old: Mapping[str, _Row]) -> _Aucs | None:
    """Compare two models on the slices of a source that both left out; None if these are not of both classes."""
    files = sorted(new.keys() & old.keys())
    labels = np.array([new[file].label for file in files])
    if len(np.unique(labels)) < len(LABELS):
        return None
    first, second = (np.array([rows[file].probability for file in files]) for rows in (new, old))
    change = difference_of_auc(first[None], second[None], labels, [new[file].group for file in files])
    return _Aucs(len(files), roc_auc_score(labels, first), roc_auc_score(labels, second), change)


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
