"""Comparison of a finished run's model with the one in place, and its release."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from service.model.card import MANIFEST_NAME
from training.errors import TrainingError
from training.release.publish import copy_model
from training.run.progress import say


@dataclass(frozen=True, slots=True)
class _Figure:
    """AUC of one source with its lower bound; numbers of slices and positives tell whether it is the same source."""

    auc: float
    low: float
    slices: int
    positives: int

    def __str__(self) -> str:
        return f"{self.auc:.3f} of {self.slices} slices"

    def is_of_the_same(self, other: "_Figure | None") -> bool:
        return other is not None and (self.slices, self.positives) == (other.slices, other.positives)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Lines to print, and the reason if the new model is not better; None if it is."""

    lines: list[str]
    objection: str | None


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
    """Compare two models folders by the AUC on left-out slices that both have; test is shown and decides nothing."""
    there_is_one = (old / MANIFEST_NAME).is_file()
    first, second = _figures(new), _figures(old) if there_is_one else {}
    lines = [
        f"release: {name}: auc {second.get(name, 'unknown')} in {old}, {figure} in {new}"
        for name, figure in first.items()
    ]
    shared = [name for name, figure in first.items() if name != "test" and figure.is_of_the_same(second.get(name))]
    chance = [name for name, figure in first.items() if name != "test" and figure.low <= 0.5]
    objection = None
    if len(chance) == len(first) - ("test" in first):
        objection = "the new model is not better than chance on any left-out source"
    elif there_is_one and not shared:
        objection = f"the model in {old} has no figures for the same left-out slices, so they can't be compared"
    elif shared:
        means = [sum(figures[name].auc for name in shared) / len(shared) for figures in (first, second)]
        if means[0] <= means[1]:
            objection = f"mean AUC on {', '.join(shared)} is {means[0]:.3f}, not better than {means[1]:.3f}"
    return Comparison(lines, objection)


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


def _figures(folder: Path) -> dict[str, _Figure]:
    """Read figures by left-out source, and of `test`, from any version of metrics.json."""
    metrics = _metrics(folder)
    try:
        sources = metrics.get("judgement", {}).get("sources", {})
        if "test" in metrics.get("splits", {}):
            sources = sources | {"test": metrics["splits"]["test"]}
        return {name: _figure(source) for name, source in sources.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{folder / MANIFEST_NAME}: can't read its figures: {error}") from error


def _figure(source: dict[str, Any]) -> _Figure:
    auc = source["figures"]["auc"]
    return _Figure(float(auc["value"]), float(auc["low"]), int(source["count"]), int(source["positives"]))
