"""The figures in prose are those of metrics.json."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.model.card import INVOLVEMENT_BOUNDS, PROBABILITY_BOUNDS, Interval
from training.evaluation.scores import shares_up_to
from training.release.lesion_record import LesionRunRecord

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


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The shipped predictions.csv."""
    with (ROOT / "models" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def written(figure: dict[str, float]) -> str:
    interval = Interval.model_validate(figure)
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def test_the_shipped_metrics_are_a_record_of_this_code(metrics: dict[str, Any]) -> None:
    assert LesionRunRecord.model_validate(metrics).model.name == "covid-ct"


def test_left_out_sources_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for name, source in metrics["judgement"]["sources"].items():
        nested = source["nested"]
        cells = [written(source["figures"]["auc"]), f"{nested['threshold']:.2f}"]
        cells += [written(nested["rates"][name]) for name in ("sensitivity", "specificity")]
        error = f"{source['figures']['calibration_error']['value']:.3f}"
        assert f"| {name} | {source['count']} ({source['positives']}) | {' | '.join(cells)} | {error} |" in card
        inside = metrics["judgement"]["strongest_inside_lung"][name]
        assert f"| {name} | {inside:.3f} |" in card


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


def test_lesion_maps_of_the_card_are_those_of_metrics_json_and_their_slices_those_of_predictions_csv(
    metrics: dict[str, Any], card: str, rows: list[dict[str, str]]
) -> None:
    lesions = metrics["judgement"]["lesions"]
    names = ("cell_auc", "dice", "involvement_spearman", "involvement_error", "strongest_inside_lung")
    assert f"| {' | '.join(f'{lesions[name]:.3f}' for name in names)} |" in card
    assert f"{lesions['slices']} slices, {lesions['with_lesion']} with lesion" in card
    drawn = [row for row in rows if row["set"] == "left-out" and row["source"] not in metrics["judgement"]["sources"]]
    assert f"{len(drawn)} slices with masks; {len(drawn) - lesions['slices']} show too little" in " ".join(card.split())


def test_official_test_of_the_card_is_that_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    official, corrected = metrics["splits"]["test"], metrics["splits"]["test_corrected"]
    for figure in official["figures"]:
        name = {"f1": "F1", "auc": "AUC"}.get(figure, figure)
        pair = f"{written(official['figures'][figure])} | {written(corrected['figures'][figure])}"
        assert f"| {name} | {pair} |" in card
    assert f"calibration error on official test {written(metrics['test_calibration_error'])}" in " ".join(card.split())
    for altered in metrics["altered"].values():
        cells = f"{altered['accuracy']:.3f} ({altered['accuracy_change']:+.3f})"
        assert f"| {cells} | {altered['auc']:.3f} ({altered['auc_change']:+.3f}) |" in card


def test_scores_by_patient_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    official, corrected = (metrics["splits"][name]["patients"] for name in ("test", "test_corrected"))
    for figure in ("accuracy", "sensitivity", "specificity", "auc"):
        name = "AUC" if figure == "auc" else figure
        assert f"| {name} | {written(official['figures'][figure])} | {written(corrected['figures'][figure])} |" in card
    assert f"over the {official['count']} patients of test" in card


def test_thresholds_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for name, point in metrics["judgement"]["operating_points"].items():
        cells = f"{point['threshold']:.2f} | {point['sensitivity']:.3f} | {point['specificity']:.3f}"
        assert f"| {name} | {cells} |" in card
    assert metrics["model"]["version"] in card.splitlines()[0]


def test_refusals_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for kinds in (metrics["checks"]["slices"], metrics["checks"]["others"]):
        for name, shares in kinds.items():
            reasons = [f"{shares['reasons'][reason]:.3f}" for reason in ("no_lungs", "wrong_window", "several_panels")]
            assert f"| {name} | {shares['count']} | {shares['refused']:.3f} | {' | '.join(reasons)} |" in card


def test_files_of_the_card_are_those_of_metrics_json(metrics: dict[str, Any], card: str) -> None:
    for file in metrics["files"]:
        agreement = metrics["agreement"][file["name"]]
        cells = [
            f"{file['bytes'] / 1e6:.1f} MB",
            f"{agreement['auc']:.3f}",
            f"{agreement['decisions_equal']:.3f}",
            f"{agreement['largest_difference']:.4f}",
        ]
        assert f"| `{file['name']}` | {' | '.join(cells)} |" in card


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
        assert (card["operating_points"], card["threshold"]) == (points, points["balanced"])


def test_each_file_has_the_figures_of_its_card_as_far_as_they_are_quoted(metrics: dict[str, Any]) -> None:
    """Equal labels give equal sensitivity, specificity and accuracy; only the AUC may change with rounding."""
    for file in metrics["files"]:
        agreement = metrics["agreement"][file["name"]]
        assert agreement["decisions_equal"] == 1.0
        assert f"{agreement['auc']:.3f}" == f"{metrics['splits']['test']['figures']['auc']['value']:.3f}"


def test_the_references_of_drift_are_those_of_the_predictions_on_test(
    metrics: dict[str, Any], rows: list[dict[str, str]]
) -> None:
    test = [row for row in rows if row["set"] == "test"]
    probability, involvement = ([float(row[name]) for row in test] for name in ("probability", "lung_involvement"))
    assert metrics["probability_shares"] == list(shares_up_to(probability, PROBABILITY_BOUNDS).values())
    written = {float(bound): share for bound, share in metrics["lung_involvement_shares"].items()}
    assert written == shares_up_to(involvement, INVOLVEMENT_BOUNDS)
