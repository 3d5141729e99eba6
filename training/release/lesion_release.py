"""A release of the recipe `lesion`: train, judge on left-out sources, evaluate test once, export, report."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.model.card import MANIFEST_NAME, Calibration, ManifestFile, SplitFingerprint
from service.model.file import load_on_cpu
from training.data.covid_ct import LABELS
from training.data.ct_slices import CtSlice, fingerprints
from training.evaluation.answers import Answers, resumed_answers
from training.evaluation.checks import CHECK_THRESHOLDS, CHECKS_RULE, measure_checks
from training.evaluation.left_out_scores import LeftOutJudgement, calibrated, judge_left_out
from training.evaluation.lesion_test import TestScores, alter, score_altered, score_test
from training.evaluation.plots import draw_confusion, draw_roc
from training.evaluation.scores import auc
from training.learning.lesion_fit import LesionFitSettings, fit_lesions
from training.network.lesion_reader import LesionReader
from training.release.export import NAME
from training.release.lesion_export import ARCHITECTURE, CardContent, export_files
from training.release.lesion_report import LesionFileAgreement, LesionReport
from training.release.report import ModelName
from training.run.atomic_write import write_atomically
from training.run.machine import peak_memory_bytes
from training.run.progress import say
from training.run.record import Provenance, git_commit, library_versions


@dataclass(frozen=True, slots=True)
class LesionData:
    """Everything that a release reads.

    Attributes:
        train: slices to learn from, of all sources.
        test: official test of COVID-CT, with official labels.
        corrections: path of a COVID-CT slice -> its true label, None where it has none.
        other: pictures that are no chest slices; every second one is for the finder, the others for judging.
        unseen: further chest slices that are never trained on, for judging the checks.
    """

    train: list[CtSlice]
    test: list[CtSlice]
    corrections: Mapping[str, int | None]
    other: list[CtSlice]
    unseen: list[CtSlice]


@dataclass(frozen=True, slots=True)
class LesionJob:
    """Settings of a release: how to train, where results go, and the model's version."""

    fit: LesionFitSettings
    models_folder: Path
    version: str

    def fingerprints(self, data: LesionData) -> dict[str, SplitFingerprint]:
        """Identify all data that a release is made from."""
        test = {f"{name} test": each for name, each in fingerprints(data.test).items()}
        return fingerprints(data.train) | test


def release_lesions(job: LesionJob, data: LesionData) -> LesionReport:
    """Train, choose calibration and thresholds on left-out sources, look at test once, export and report."""
    started, seed = time.perf_counter(), job.fit.recipe.seed
    fitted = fit_lesions(job.fit, data.train, data.other[::2])
    trained = time.perf_counter()
    left_out = [each for each, out in zip(data.train, fitted.left_out, strict=True) if out]
    judge = LesionReader(fitted.finder, fitted.left_out_network, fitted.left_out_appearance).eval()
    machine = job.fit.machine
    folder = job.fit.run_folder
    judged = resumed_answers(
        folder / "left-out-answers.npz", judge.to(machine.device), left_out, machine, "answering left-out slices"
    )
    judgement = judge_left_out(judged, left_out, seed)
    say("left-out sources are judged; now the only look at test")
    platt = judgement.calibration
    reader = (
        LesionReader(fitted.finder, fitted.network, fitted.appearance, platt.slope, platt.offset)
        .eval()
        .half()
        .float()
        .to(machine.device)
    )
    exact = machine.without_autocast()
    test = {
        # changes of altered slices are larger than what autocast rounds
        name: resumed_answers(
            folder / f"test-{name}-answers.npz",
            reader,
            slices,
            exact if name == "plain" else machine,
            f"answering test, {name}",
        )
        for name, slices in alter(data.test, fitted.finder).items()
    }
    scores = score_test(test["plain"], data.test, data.corrections, judgement.threshold, seed)
    others = {"photographs": data.other[1::2]} if data.other else {}
    checks = measure_checks(reader, [*data.train, *data.test, *data.unseen], others, machine, seed)
    provenance = _provenance(job, data)
    files = export_files(reader.cpu(), _content(job, judgement, scores, provenance), data.train, job.models_folder)
    report = LesionReport(
        **dict(provenance),
        files=tuple(files),
        model=ModelName(name=NAME, version=job.version, architecture=ARCHITECTURE, weights=fitted.weights),
        positive_label=LABELS[1],
        judgement=judgement,
        splits=scores.scores,
        test_calibration_error=scores.calibration_error,
        altered=score_altered(test, data.test, judgement.threshold),
        checks=checks,
        agreement={file.name: _agreement(job, file, test["plain"], data.test, judgement) for file in files},
        probability_shares=scores.probability_shares,
        wall_time_seconds={"training": trained - started, "evaluation_and_export": time.perf_counter() - trained},
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job.models_folder, report, [("left-out", judged, left_out), ("test", test["plain"], data.test)])
    return report


def _content(job: LesionJob, judgement: LeftOutJudgement, scores: TestScores, provenance: Provenance) -> CardContent:
    balanced = judgement.operating_points["balanced"]
    return CardContent(
        version=job.version,
        threshold=balanced.threshold,
        threshold_rule=balanced.rule,
        operating_points={name: point.threshold for name, point in judgement.operating_points.items()},
        checks=CHECK_THRESHOLDS,
        checks_rule=CHECKS_RULE,
        calibration=Calibration(**judgement.calibration.model_dump()),
        test_metrics={str(name): figure for name, figure in scores.scores["test"].figures.items()},
        left_out_metrics={name: each.figures for name, each in judgement.sources.items()},
        provenance=provenance,
    )


def _provenance(job: LesionJob, data: LesionData) -> Provenance:
    return Provenance(
        config=job.fit.recipe.model_dump(mode="json"),
        data=job.fingerprints(data),
        git_commit=git_commit(),
        versions=library_versions(),
        machine=str(job.fit.machine),
    )


def _agreement(
    job: LesionJob, file: ManifestFile, answers: Answers, slices: Sequence[CtSlice], judgement: LeftOutJudgement
) -> LesionFileAgreement:
    """Load a written file like the service does and compare its answers to test."""
    network = load_on_cpu(job.models_folder, file).network
    own = []
    with torch.inference_mode():
        for each in slices:
            own.append(network(torch.from_numpy(each.grey)[None, None])["probability"].item())
    probability = np.array(own)
    labels = torch.tensor([each.label for each in slices])
    threshold = judgement.threshold
    return LesionFileAgreement(
        largest_difference=float(np.abs(probability - answers.probability).max()),
        auc=auc(torch.from_numpy(probability), labels),
        decisions_equal=float(((probability >= threshold) == (answers.probability >= threshold)).mean()),
    )


def _write(folder: Path, report: LesionReport, sets: Sequence[tuple[str, Answers, Sequence[CtSlice]]]) -> None:
    """Write predictions and plots, then the manifest, which makes the model files valid."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("set", "source", "file", "label", "probability", "lung_involvement"))
    for name, answers, slices in sets:
        raw = name != "test"  # the network that answers left-out slices is not calibrated inside
        probability = calibrated(answers.log_odds, report.judgement.calibration) if raw else answers.probability
        for each, p, involvement in zip(slices, probability, answers.involvement[:, 0], strict=True):
            label = "" if each.label is None else each.label
            rows.writerow((name, each.source, each.name, label, f"{p:.6f}", f"{involvement:.4f}"))
    write_atomically(folder / "predictions.csv", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))
    plots = {
        "roc": draw_roc(report.splits),
        "confusion": draw_confusion({name: split.confusion_matrix for name, split in report.splits.items()}),
    }
    (folder / "figures").mkdir(exist_ok=True)
    for name, plot in plots.items():
        # no Software tag: it would change the committed file with every release of matplotlib
        plot.savefig(folder / "figures" / f"{name}.png", dpi=110, metadata={"Software": None})
    report.write(folder / MANIFEST_NAME)
