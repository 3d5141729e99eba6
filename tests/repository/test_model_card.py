"""The figures in prose are those of metrics.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.model.card import Interval

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """The shipped metrics.json."""
    content: dict[str, Any] = json.loads((ROOT / "models" / "metrics.json").read_text())
    return content


@pytest.fixture(scope="module")
def card() -> str:
    """The model card."""
    return (ROOT / "models" / "README.md").read_text()


def written(figure: dict[str, float]) -> str:
    interval = Interval.model_validate(figure)
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def test_the_results_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    chosen_on, test = metrics["splits"]["out-of-fold"], metrics["splits"]["test"]
    for figure, interval in test["figures"].items():
        name = {"f1": "F1", "auc": "AUC"}.get(figure, figure)
        assert f"| {name} | {written(chosen_on['figures'][figure])} | {written(interval)} |" in card
    value = {name: f"{each['value']:.3f}" for name, each in test["figures"].items()}
    assert f"| this model | {value['accuracy']} | {value['auc']} |" in card
    rule = metrics["audit"]["header_rule"]
    assert f"the training slices' formats | {rule['accuracy']:.3f} | {rule['auc']:.3f} |" in card
    matrix = test["confusion_matrix"]
    positives = f"{matrix['true_positives']} true and {matrix['false_positives']} false positives"
    negatives = f"{matrix['true_negatives']} true and {matrix['false_negatives']} false negatives"
    assert f"{positives}, {negatives}" in " ".join(card.split())
    assert f"threshold {metrics['threshold']['value']:.3f}" in card
    assert metrics["model"]["version"] in card.splitlines()[0]


def test_the_thresholds_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for point in metrics["operating_points"].values():
        cells = [written(point["test"][figure]) for figure in ("sensitivity", "specificity", "accuracy")]
        assert f"| {point['threshold']['value']:.3f} | {' | '.join(cells)} |" in card


def test_the_audit_of_the_card_is_that_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for variant in metrics["audit"]["variants"].values():
        accuracy, auc = (variant["figures"][name]["value"] for name in ("accuracy", "auc"))
        cells = f"{accuracy:.3f} ({variant['accuracy_change']:+.3f}) | {auc:.3f} ({variant['auc_change']:+.3f})"
        assert f"| {cells} |" in card
    for encoding, subset in metrics["audit"]["formats"].items():
        auc = written(subset["auc"]) if subset["auc"] else "one class only"
        assert f"| {encoding} | {subset['count']} | {subset['positives']} | {auc} |" in card


def test_calibration_gate_and_heat_map_of_the_card_are_those_of_metrics_json(
    metrics: dict[str, Any], card: str
) -> None:
    for split, calibration in metrics["calibration"].items():
        errors = [calibration[when]["expected_calibration_error"] for when in ("before", "after")]
        scores = [calibration[when]["brier_score"] for when in ("before", "after")]
        assert f"| {split} | {' | '.join(f'{each:.3f}' for each in (*errors, *scores))} |" in card
    assert f"Temperature {metrics['temperature']:.2f}" in card
    for kind, flagged in metrics["out_of_distribution"]["images"].items():
        assert f"| {kind} | {flagged['count']} | {flagged['share']:.3f} |" in card
    heatmap = metrics["heatmap"]
    assert f"in {heatmap['share']:.3f} of the {heatmap['count']} rightly called" in card


def test_the_files_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for file in metrics["files"]:
        agreement = metrics["agreement"]["files"][file["name"]]
        cells = [
            f"{file['bytes'] / 1e6:.1f} MB",
            f"{agreement['auc']:.3f} ({agreement['auc_change']:+.4f})",
            f"{agreement['decisions_equal']:.3f}",
            f"{agreement['verdicts_equal']:.3f}",
            f"{agreement['largest_difference']:.4f}",
        ]
        assert f"| `{file['name']}` | {' | '.join(cells)} |" in card


@pytest.mark.parametrize("figure", ["accuracy", "auc", "sensitivity", "specificity"])
def test_the_readme_quotes_the_test_figures_of_metrics_json(metrics: dict[str, Any], figure: str) -> None:
    assert written(metrics["splits"]["test"]["figures"][figure]) in (ROOT / "README.md").read_text()
