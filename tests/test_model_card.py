"""The figures in prose are those of metrics.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.artifact import Interval

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """The shipped metrics.json."""
    content: dict[str, Any] = json.loads((ROOT / "models" / "metrics.json").read_text())
    return content


def written(figure: dict[str, float]) -> str:
    interval = Interval.model_validate(figure)
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def test_the_table_of_the_model_card_is_that_of_metrics_json(metrics: dict[str, Any]) -> None:
    card = (ROOT / "models" / "README.md").read_text()
    for name in ("val", "test"):
        for figure, interval in metrics["splits"][name]["figures"].items():
            assert written(interval) in card, (name, figure)
    for figures in (metrics["test_reencoded"], metrics["test_at_half"]):
        assert f"{figures['figures']['accuracy']['value']:.3f} | {figures['figures']['auc']['value']:.3f}" in card
    test = metrics["splits"]["test"]
    assert f"threshold {metrics['threshold']['value']:.3f}" in card
    assert f"error {test['expected_calibration_error']:.3f}" in card
    assert f"score {test['brier_score']:.3f}" in card
    assert metrics["files"][0]["name"] in card
    assert metrics["model"]["version"] in card.splitlines()[0]


@pytest.mark.parametrize("figure", ["accuracy", "auc", "sensitivity", "specificity"])
def test_the_readme_quotes_the_test_figures_of_metrics_json(metrics: dict[str, Any], figure: str) -> None:
    assert written(metrics["splits"]["test"]["figures"][figure]) in (ROOT / "README.md").read_text()
