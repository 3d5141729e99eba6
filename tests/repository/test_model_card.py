"""The shipped model: card, predictions and files have the figures of metrics.json."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.model.card import INVOLVEMENT_BOUNDS, PROBABILITY_BOUNDS
from training.evaluation.scores import shares_up_to
from training.release.lesion_card import card_text
from training.release.lesion_record import LesionRunRecord

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """The shipped metrics.json."""
    content: dict[str, Any] = json.loads((ROOT / "models" / "metrics.json").read_text())
    return content


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The shipped predictions.csv."""
    with (ROOT / "models" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_model_card_is_written_from_metrics_json(metrics: dict[str, Any]) -> None:
    assert (ROOT / "models" / "README.md").read_text() == card_text(LesionRunRecord.model_validate(metrics))


def test_rates_of_left_out_sources_are_those_of_predictions_csv_at_their_nested_thresholds(
    metrics: dict[str, Any], rows: list[dict[str, str]]
) -> None:
    for name, source in metrics["judgement"]["sources"].items():
        nested = source["nested"]
        for label, rate in (("1", "sensitivity"), ("0", "specificity")):
            members = [row for row in rows if (row["set"], row["source"], row["label"]) == ("left-out", name, label)]
            called = [float(row["probability"]) >= nested["threshold"] for row in members]
            right = sum(called) if label == "1" else len(called) - sum(called)
            assert nested["rates"][rate]["value"] == round(right / len(called), 4)


def test_the_cards_of_all_files_state_the_figures_of_metrics_json(metrics: dict[str, Any]) -> None:
    """README and model card quote metrics.json; a service and `covid-ct model show` quote the file that they use."""
    judgement = metrics["judgement"]
    for file in metrics["files"]:
        with zipfile.ZipFile(ROOT / "models" / file["name"]) as archive:
            (name,) = (member for member in archive.namelist() if member.endswith("/card.json"))
            card = json.loads(archive.read(name))
        assert card["precision"] == file["precision"]
        assert card["version"] == metrics["model"]["version"]
        values = {name: figure["value"] for name, figure in card["test_metrics"].items()}
        assert values == pytest.approx(
            {name: figure["value"] for name, figure in metrics["splits"]["test"]["figures"].items()}, abs=5e-5
        )
        sources = {name: source["figures"] for name, source in judgement["sources"].items()}
        assert card["left_out_metrics"] == sources
        points = {name: point["threshold"] for name, point in judgement["operating_points"].items()}
        assert (card["operating_points"], card["threshold"]) == (points, points["differential"])


def test_each_file_predicts_almost_as_the_network_of_the_card(metrics: dict[str, Any]) -> None:
    auc = metrics["splits"]["test"]["figures"]["auc"]["value"]
    for file in metrics["files"]:
        agreement = metrics["agreement"][file["name"]]
        assert agreement["decisions_equal"] >= (1.0 if file["precision"] == "fp16" else 0.99)
        assert agreement["auc"] == pytest.approx(auc, abs=0.002)


def test_the_references_of_drift_are_those_of_the_predictions_on_test(
    metrics: dict[str, Any], rows: list[dict[str, str]]
) -> None:
    test = [row for row in rows if row["set"] == "test"]
    probability, involvement = ([float(row[name]) for row in test] for name in ("probability", "lung_involvement"))
    assert metrics["probability_shares"] == list(shares_up_to(probability, PROBABILITY_BOUNDS).values())
    written = {float(bound): share for bound, share in metrics["lung_involvement_shares"].items()}
    assert written == shares_up_to(involvement, INVOLVEMENT_BOUNDS)
