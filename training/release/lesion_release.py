"""A release of the recipe `lesion`: train, judge on left-out sources, evaluate test once, export, report.

Every stage is resumed from the run folder, so that a killed run repeats at most the stage that it was in.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from pydantic import ValidationError

from service.model.card import MANIFEST_NAME, AnswerName, Calibration, ManifestFile, SplitFingerprint
from service.model.file import load_on_cpu
from training.data.covid_ct import LABELS
from training.data.ct_slices import CtSlice, fingerprints
from training.data.lesion_data import LesionData
from training.evaluation.answers import Answers, resumed_answers
from training.evaluation.checks import CHECK_THRESHOLDS, CHECKS_RULE, Checks, measure_checks
from training.evaluation.heatmap_check import CoveringTest, cover, score_covering
from training.evaluation.left_out_scores import LeftOutJudgement, calibrated, judge_left_out
from training.evaluation.official_test import OfficialTestScores, alter, score_altered, score_test
from training.evaluation.plots import save_plot, save_plots
from training.evaluation.scores import score
from training.learning.lesion_fit import STAGES, FittedLesions, LesionFitSettings, fit_lesions
from training.learning.lesion_training import training_seconds
from training.learning.lung_crops import resumed_lungs
from training.network.lesion_reader import LesionReader
from training.release.export import NAME
from training.release.lesion_card import write_card
from training.release.lesion_export import ARCHITECTURE, CardContent, export_files
from training.release.lesion_plots import draw_plots, draw_samples
from training.release.lesion_report import ExportedFiles, LesionFileAgreement, LesionReport
from training.release.predictions_csv import AnsweredSet, write_answers
from training.release.publish import find_damaged, publish, staging_folder
from training.release.report import ModelName
from training.run.machine import peak_memory_bytes
from training.run.processes import current
from training.run.progress import say, stage
from training.run.record import Provenance, make_provenance, write_schema
from training.run.run_folder import resumed_record


@dataclass(frozen=True, slots=True)
class LesionJob:
    """Settings of a release.

    Attributes:
        fit: how to train.
        version: of the model.
        inputs: SHA-256 of the inputs by name.
        export_anyway: write model files although the network learned nothing.
    """

    fit: LesionFitSettings
    version: str
    inputs: Mapping[str, str]
    export_anyway: bool = False

    @property
    def models_folder(self) -> Path:
        """Folder for model files, metrics.json, predictions.csv and figures."""
        return self.fit.run_folder / "model"

    def fingerprints(self, data: LesionData) -> dict[str, SplitFingerprint]:
        """Identify all data that a release is made from."""
        test = {f"{name} test": each for name, each in fingerprints(data.test).items()}
        return fingerprints(data.train) | test


@dataclass(frozen=True, slots=True)
class _Tested:
    """The shipped network with its answers to test, by alteration, and what is refused."""

    reader: LesionReader
    answers: dict[str, Answers]
    scores: OfficialTestScores
    covering: CoveringTest | None
    checks: Checks


def release_lesions(job: LesionJob, data: LesionData) -> LesionReport:
    """Train, choose calibration and thresholds on left-out sources, look at test once, export and report.

    A finished run is read and not repeated.
    """
    finished = _read(job)
    if finished:
        say(f"{job.models_folder}: this run is finished; --fresh repeats it")
        current().leave_to_first()
        return finished
    fitted = fit_lesions(job.fit, data.train, data.other[::2])
    found = resumed_lungs(job.fit.run_folder / "lungs.npz", fitted.finder, data.train)
    save_plot(draw_samples(job.fit, data.train, found), job.fit.run_folder / "samples.png")
    trained = time.perf_counter()
    left_out = [each for each, out in zip(data.train, fitted.left_out, strict=True) if out]
    judged = _answer_left_out(job, fitted, left_out)
    judgement = judge_left_out(judged, left_out, job.fit.recipe.seed)
    tested = _test(job, data, fitted, judgement)
    report = _export(job, data, fitted, judgement, tested)
    seconds = {
        name: training_seconds(job.fit.run_folder / f"{name}-losses.csv") for name in ("left-out", "network")
    } | {"evaluation_and_export": time.perf_counter() - trained}
    report = report.model_copy(update={"wall_time_seconds": seconds, "peak_memory_bytes": peak_memory_bytes()})
    sets = (
        # the network that answers left-out slices is not calibrated inside
        AnsweredSet("left-out", left_out, calibrated(judged, judgement.calibrations)),
        AnsweredSet("test", data.test, tested.answers["plain"]),
    )
    _write(job, report, sets)
    publish(job.models_folder)
    return report


def _read(job: LesionJob) -> LesionReport | None:
    """Read the record of a finished run; None if there is none of this version."""
    try:
        report = LesionReport.model_validate_json((job.models_folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    is_complete = report.files or not job.export_anyway
    return report if is_complete and report.model.version == job.version else None


def _answer_left_out(job: LesionJob, fitted: FittedLesions, left_out: Sequence[CtSlice]) -> Answers:
    stage(5, STAGES, "answers to left-out slices, calibration, thresholds")
    appearance, size = fitted.left_out_appearance, job.fit.recipe.box_size
    judge = LesionReader(fitted.finder, fitted.views, fitted.left_out_network, appearance, size).eval()
    machine = job.fit.machine
    path = job.fit.run_folder / "left-out-answers.npz"
    return resumed_answers(path, judge.to(machine.device), left_out, machine, "answering left-out slices")


def _test(job: LesionJob, data: LesionData, fitted: FittedLesions, judgement: LeftOutJudgement) -> _Tested:
    stage(6, STAGES, "the only look at test")
    machine, recipe = job.fit.machine, job.fit.recipe
    seed, size = recipe.seed, recipe.box_size
    of_lesion, of_covid = (
        (judgement.calibrations[name].slope, judgement.calibrations[name].offset) for name in get_args(AnswerName)
    )
    reader = LesionReader(fitted.finder, fitted.views, fitted.network, fitted.appearance, size, of_lesion, of_covid)
    reader = reader.eval().half().float().to(machine.device)  # figures are those of the fp16 file
    answers = {
        # changes of altered slices are larger than what autocast rounds
        name: resumed_answers(
            job.fit.run_folder / f"test-{name}-answers.npz",
            reader,
            slices,
            machine.without_autocast() if name == "plain" else machine,
            f"answering test, {name}",
        )
        for name, slices in alter(data.originals, data.test, fitted.finder).items()
    }
    covered = cover(answers["plain"], data.test, seed)
    covered_answers = {
        name: resumed_answers(
            job.fit.run_folder / f"test-{name}-covered-answers.npz",
            reader,
            slices,
            machine,
            f"answering test, {name} cells covered",
        )
        for name, slices in covered.items()
    }
    scores = score_test(
        answers["plain"],
        data.test,
        data.corrections,
        data.known_papers,
        judgement.threshold,
        seed,
        patients_are_known=data.patients_are_known,
    )
    stage(7, STAGES, "what is refused")
    others = {"photographs": data.other[1::2]} if data.other else {}
    slices = [*data.train, *data.test, *data.unseen]
    measure = partial(measure_checks, reader, slices, others, machine, seed)
    checks = resumed_record(job.fit.run_folder / "checks.json", Checks, measure)
    covering = score_covering(answers["plain"], covered_answers, data.test, judgement.threshold)
    return _Tested(reader, answers, scores, covering, checks)


def _export(
    job: LesionJob, data: LesionData, fitted: FittedLesions, judgement: LeftOutJudgement, tested: _Tested
) -> LesionReport:
    """Write the model files into the staging folder, check them, and put the report together."""
    stage(8, STAGES, "export")
    folder, staging = job.fit.run_folder, staging_folder(job.models_folder)
    provenance = make_provenance(
        job.fit.recipe.model_dump(mode="json"), job.fingerprints(data), job.inputs, str(job.fit.machine)
    )
    content = _content(job, judgement, tested.scores, provenance)
    exported = ExportedFiles(version=job.version, files=())
    if judgement.learned or job.export_anyway:
        exported = resumed_record(
            folder / "files.json",
            ExportedFiles,
            lambda: ExportedFiles(
                version=job.version, files=tuple(export_files(tested.reader.cpu(), content, data.train, staging))
            ),
            lambda stored: stored.version == job.version and find_damaged(staging, stored.files) is None,
        )
    stage(9, STAGES, "a check of the files")
    agreement = {
        file.name: resumed_record(
            folder / f"agreement-{file.sha256[:8]}.json",
            LesionFileAgreement,
            partial(_agreement, staging, file, tested.answers["plain"], data, judgement.threshold, job.fit.recipe.seed),
        )
        for file in exported.files
    }
    return LesionReport(
        **dict(provenance),
        files=exported.files,
        model=ModelName(name=NAME, version=job.version, architecture=ARCHITECTURE, weights=fitted.weights),
        positive_label=LABELS[1],
        learned=judgement.learned,
        judgement=judgement,
        splits=tested.scores.scores,
        test_calibration_error=tested.scores.scores["test"].figures["calibration_error"],
        formats=tested.scores.formats,
        altered=score_altered(tested.answers, data.test, judgement.threshold),
        covering=tested.covering,
        checks=tested.checks,
        agreement=agreement,
        probability_shares=tested.scores.probability_shares,
        lung_involvement_shares=tested.scores.lung_involvement_shares,
        wall_time_seconds={},
        peak_memory_bytes=0,
    )


def _content(
    job: LesionJob, judgement: LeftOutJudgement, scores: OfficialTestScores, provenance: Provenance
) -> CardContent:
    differential = judgement.operating_points["differential"]
    return CardContent(
        version=job.version,
        learned=judgement.learned,
        threshold=differential.threshold,
        threshold_rule=differential.rule_with_range,
        operating_points=judgement.operating_points,
        checks=CHECK_THRESHOLDS,
        checks_rule=CHECKS_RULE,
        calibrations={name: Calibration(**own.model_dump()) for name, own in judgement.calibrations.items()},
        test_metrics={str(name): figure for name, figure in scores.scores["test"].figures.items()},
        left_out_metrics={
            source: {str(name): figure for name, figure in each.figures.items()}
            for source, each in judgement.sources.items()
        },
        provenance=provenance,
    )


def _agreement(
    folder: Path, file: ManifestFile, answers: Answers, data: LesionData, threshold: float, seed: int
) -> LesionFileAgreement:
    """Load a written file like the service does and compare its answers to test."""
    network = load_on_cpu(folder, file).network
    with torch.inference_mode():
        own = [network(torch.from_numpy(each.grey)[None, None])["probability"].item() for each in data.test]
    probability = np.array(own)
    groups = [each.group for each in data.test] if data.patients_are_known else None
    figures = score(probability, np.array([each.label for each in data.test]), threshold, seed, groups).figures
    return LesionFileAgreement(
        largest_difference=float(np.abs(probability - answers.probability).max()),
        auc=figures["auc"].value,
        decisions_equal=float(((probability >= threshold) == (answers.probability >= threshold)).mean()),
        figures=figures,
    )


def _write(job: LesionJob, report: LesionReport, sets: tuple[AnsweredSet, AnsweredSet]) -> None:
    """Write predictions, plots, the card, the manifest and its JSON Schema."""
    folder, run_folder = staging_folder(job.models_folder), job.fit.run_folder
    losses = {
        "without left-out slices": run_folder / "left-out-losses.csv",
        "on all slices": run_folder / "network-losses.csv",
    }
    write_answers(folder / "predictions.csv", sets)
    save_plots(draw_plots(report, *sets, losses), folder / "figures")
    write_schema(LesionReport, folder)
    write_card(folder, report)
    report.write(folder / MANIFEST_NAME)
