"""The command `calibrate`, from labelled slices to a folder that the service serves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.model.card import Calibration, LocalCalibration
from service.model.file import read_manifest
from tests.support.networks.tiny import TinyDoctor, TinyNetwork, doctor_card, tiny_card, write_models
from tests.support.processes.client import predict, serve
from training.__main__ import main
from training.models.local_calibration import ProbabilityName

COLUMNS = ("file", "label", "source", "patient", "finding")


def _hospital(folder: Path, count: int = 40, patients: int = 20, levels: tuple[int, int] = (170, 140)) -> Path:
    """Even slices; COVID is brighter than NonCOVID, and usually both than the network was calibrated for."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for label, level, finding in zip(("COVID", "NonCOVID"), levels, ("", "healthy"), strict=True):
        for number in range(count):
            grey = np.full((64, 64), rng.normal(level, 14), np.uint8)
            Image.fromarray(grey).save(folder / f"{label}-{number}.png")
            rows.append((f"{label}-{number}.png", label, "clinic", f"{label}-{number % patients}", finding))
    with (folder / "slices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A released model of three probabilities, with a card."""
    folder = tmp_path / "models"
    write_models(folder, doctor_card(), TinyDoctor())
    (folder / "README.md").write_text("# Model card\n\nFigures.\n")
    return folder


def _local(folder: Path) -> LocalCalibration:
    local = read_manifest(folder).local
    assert local is not None
    return local


def test_a_calibrated_folder_has_the_same_files_and_states_figures_on_other_patients(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "here"
    command = ["calibrate", "--models", str(released), "--labelled", str(_hospital(tmp_path / "clinic"))]
    assert main([*command, "--out", str(out)]) == 0
    assert read_manifest(out).files == read_manifest(released).files
    for file in read_manifest(out).files:
        assert (out / file.name).read_bytes() == (released / file.name).read_bytes()
    local = _local(out)
    assert (local.source, local.count, local.positives, local.groups) == ("clinic", 80, 40, 40)
    assert local.calibrations.keys() == {"lesion_probability", "covid_given_lesion"}
    assert local.figures["calibration_error"].value < 0.2
    assert local.figures["differential sensitivity"].value > 0.7
    assert local.figures["differential specificity"].value > 0.5
    assert local.lesion_thresholds["triage"] > local.operating_points["triage"] == 0
    printed = capsys.readouterr().out
    assert f"clinic, calibration_error: {local.figures['calibration_error'].value:.3f}" in printed
    card = (out / "README.md").read_text()
    assert card.startswith("# Model card\n\nFigures.\n\n## Calibrated to clinic")
    assert "from 80 slices (40 COVID) of 40 patients of clinic" in card
    assert f"| differential | {local.threshold:.2f} | 0.00 |" in card


@pytest.mark.anyio
@pytest.mark.parametrize("probabilities", [("lesion_probability", "covid_given_lesion"), ("probability",)])
async def test_the_service_serves_the_calibrated_probabilities_and_thresholds(
    probabilities: tuple[ProbabilityName, ...], released: Path, tmp_path: Path
) -> None:
    if probabilities == ("probability",):  # a model of 2.0
        write_models(released, tiny_card(), TinyNetwork())
    out, clinic = tmp_path / "here", _hospital(tmp_path / "clinic")
    assert main(["calibrate", "--models", str(released), "--labelled", str(clinic), "--out", str(out)]) == 0
    local = _local(out)
    assert tuple(local.calibrations) == probabilities
    data = (clinic / "COVID-0.png").read_bytes()
    async with serve(released) as client:
        before = (await predict(client, data)).json()
    async with serve(out) as client:
        after = (await predict(client, data)).json()
        card = (await client.get("/model")).json()["card"]
    for name in probabilities:
        assert after[name] == pytest.approx(local.calibrations[name].apply(before[name]), abs=1e-4)
    assert after["probability"] == pytest.approx(np.prod([after[name] for name in probabilities]), abs=1e-6)
    assert (after["lesion_probability"] is None) == (len(probabilities) == 1)
    assert after["threshold"] == local.threshold
    assert card["local"]["source"] == "clinic"
    assert card["operating_points"] == local.operating_points


def test_a_calibration_that_helps_no_other_patient_is_warned_of(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", "--models", str(released), "--out", str(tmp_path / "here"), "--labelled"]
    assert main([*command, str(_hospital(tmp_path / "alike", levels=(115, 115)))]) == 0
    assert "no better than the released model" in capsys.readouterr().err
    assert main([*command, str(_hospital(tmp_path / "clinic"))]) == 0
    assert "warning" not in capsys.readouterr().err


def test_calibrating_again_replaces_section_and_manifest(released: Path, tmp_path: Path) -> None:
    out, clinic = tmp_path / "here", _hospital(tmp_path / "clinic")
    command = ["calibrate", "--labelled", str(clinic)]
    assert main([*command, "--models", str(released), "--out", str(out)]) == 0
    assert main([*command, "--models", str(out), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "README.md").read_text().count("## Calibrated to") == 1


@pytest.mark.parametrize(
    ("count", "patients", "reason"),
    [(29, 20, "29 usable COVID slices; a calibration needs 30 of each class"), (40, 1, "are of one patient")],
)
def test_too_few_slices_or_patients_are_refused(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, patients: int, reason: str
) -> None:
    clinic = _hospital(tmp_path / "clinic", count, patients)
    arguments = ["calibrate", "--models", str(released), "--labelled", str(clinic), "--out", str(tmp_path / "here")]
    assert main(arguments) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "here").exists()


def test_the_released_folder_is_never_overwritten(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((released / "metrics.json").read_text())
    clinic = _hospital(tmp_path / "clinic")
    assert main(["calibrate", "--models", str(released), "--labelled", str(clinic), "--out", str(released)]) == 1
    assert "that is the folder of the released model" in capsys.readouterr().err
    assert json.loads((released / "metrics.json").read_text()) == before


def test_a_calibration_moves_log_odds() -> None:
    calibration = Calibration(slope=2.0, offset=1.0, rule="")
    assert calibration.apply(0.5) == pytest.approx(1 / (1 + np.exp(-1)))
    assert [calibration.apply(p) for p in (0.0, 1.0)] == pytest.approx([0.0, 1.0], abs=1e-6)
