"""A release of the recipe `lesion`: train, judge on left-out sources, evaluate test once, export.

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

from service.model.card import MANIFEST_NAME, AnswerName, Calibration, ManifestFile, SplitFingerprint
from service.model.file import load_on_cpu
from training.data.covid_ct import LABELS
from training.data.ct_slices import CtSlice, fingerprints
from training.data.lesion_data import LesionData
from training.evaluation.left_out_scores import LeftOutJudgement, calibrated, judge_left_out
from training.evaluation.official_test import OfficialTestScores, alter, score_altered, score_test
from training.evaluation.plots import save_plot, save_plots
from training.evaluation.predictions import Predictions, resumed_predictions
from training.evaluation.refusals import CHECK_THRESHOLDS, CHECKS_RULE, Refusals, measure_refusals
from training.evaluation.scores import score
from training.learning.lesion_fit import FittedLesions, LesionFitSettings, fit_lesions
from training.learning.lesion_stages import LesionStage
from training.learning.lesion_training import training_seconds
from training.learning.lung_crops import resumed_lungs
from training.network.lesion_reader import LesionReader
from training.release.export import NAME
from training.release.lesion_card import write_card
from training.release.lesion_export import ARCHITECTURE, CardContent, export_files
from training.release.lesion_plots import draw_plots, draw_samples
from training.release.lesion_record import ExportedFiles, LesionFileAgreement, LesionRunRecord
from training.release.predictions_csv import PredictedSet, write_predictions
from training.release.publish import find_damaged, publish, staging_folder
from training.release.run_record import ModelName, read_finished
from training.run.machine import peak_memory_bytes
from training.run.processes import current
from training.run.progress import say
from training.run.record import Provenance, make_provenance, write_schema
from training.run.stages import resumed_record


@dataclass(frozen=True, slots=True)
class LesionJob:
    """Settings of a release.

    Attributes:
        fit: settings of the training.
        version: of the model.
        inputs: SHA-256 of the inputs by name.
        export_anyway: write model files even if the network learned nothing.
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
        test = {f"{name} test": fingerprint for name, fingerprint in fingerprints(data.test).items()}
        return fingerprints(data.train) | test


@dataclass(frozen=True, slots=True)
class _Tested:
    """The shipped network with its predictions for test, by alteration, and its refusals."""

    reader: LesionReader
    predictions: dict[str, Predictions]
    scores: OfficialTestScores
    refusals: Refusals


def release_lesions(job: LesionJob, data: LesionData) -> LesionRunRecord:
    """Train, choose calibration and thresholds on left-out sources, evaluate test once, export and record.

    A finished run is read and not repeated.
    """
    finished = read_finished(job.models_folder, LesionRunRecord, job.version, export_anyway=job.export_anyway)
    if finished:
        say(f"{job.models_folder}: this run is finished; --fresh repeats it")
        current().leave_to_first()
        return finished
    fitted = fit_lesions(job.fit, data.train, data.other_for_training)
    lungs = resumed_lungs(job.fit.run_folder / "lungs.npz", fitted.finder, data.train)
    save_plot(draw_samples(job.fit, data.train, lungs), job.fit.run_folder / "samples.png")
    trained = time.perf_counter()
    left_out = [slice_ for slice_, out in zip(data.train, fitted.left_out, strict=True) if out]
    uncalibrated = _predict_left_out(job, fitted, left_out)
    judgement = judge_left_out(uncalibrated, left_out, job.fit.recipe.seed)
    tested = _test(job, data, fitted, judgement)
    record = _export(job, data, fitted, judgement, tested)
    seconds = {
        name: training_seconds(job.fit.run_folder / f"{name}-losses.csv") for name in ("left-out", "network")
    } | {"evaluation_and_export": time.perf_counter() - trained}
    record = record.model_copy(update={"wall_time_seconds": seconds, "peak_memory_bytes": peak_memory_bytes()})
    sets = (
        PredictedSet("left-out", left_out, calibrated(uncalibrated, judgement.calibrations)),
        PredictedSet("test", data.test, tested.predictions["plain"]),
    )
    _write(job, record, sets)
    publish(job.models_folder)
    return record


def _predict_left_out(job: LesionJob, fitted: FittedLesions, left_out: Sequence[CtSlice]) -> Predictions:
    LesionStage.JUDGEMENT.announce()
    appearance, size = fitted.left_out_appearance, job.fit.recipe.box_size
    reader = LesionReader(fitted.finder, fitted.views, fitted.left_out_network, appearance, size).eval()
    machine = job.fit.machine
    path = job.fit.run_folder / "left-out-predictions.npz"
    return resumed_predictions(path, reader.to(machine.device), left_out, machine, "predicting left-out slices")


def _test(job: LesionJob, data: LesionData, fitted: FittedLesions, judgement: LeftOutJudgement) -> _Tested:
    LesionStage.TEST.announce()
    machine, recipe = job.fit.machine, job.fit.recipe
    of_lesion, of_covid = (
        (judgement.calibrations[name].slope, judgement.calibrations[name].offset) for name in get_args(AnswerName)
    )
    reader = LesionReader(
        fitted.finder, fitted.views, fitted.network, fitted.appearance, recipe.box_size, of_lesion, of_covid
    )
    reader = reader.eval().half().float().to(machine.device)  # figures are those of the fp16 file
    predictions = {
        # changes of altered slices are larger than the rounding of autocast
        name: resumed_predictions(
            job.fit.run_folder / f"test-{name}-predictions.npz",
            reader,
            slices,
            machine.without_autocast() if name == "plain" else machine,
            f"predicting test, {name}",
        )
        for name, slices in alter(data.originals, data.test, fitted.finder).items()
    }
    scores = score_test(
        predictions["plain"],
        data.test,
        data.corrections,
        data.known_papers,
        judgement.threshold,
        recipe.seed,
        patients_are_known=data.patients_are_known,
    )
    LesionStage.REFUSALS.announce()
    others = {"photographs": data.other_for_refusals} if data.other_for_refusals else {}
    slices = [*data.train, *data.test, *data.unseen]
    measure = partial(measure_refusals, reader, slices, others, machine, recipe.seed)
    refusals = resumed_record(job.fit.run_folder / "checks.json", Refusals, measure)
    return _Tested(reader, predictions, scores, refusals)


def _export(
    job: LesionJob, data: LesionData, fitted: FittedLesions, judgement: LeftOutJudgement, tested: _Tested
) -> LesionRunRecord:
    """Write the model files into the staging folder, check them, and build the record."""
    LesionStage.EXPORT.announce()
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
    LesionStage.CHECK.announce()
    plain, seed = tested.predictions["plain"], job.fit.recipe.seed
    agreement = {
        file.name: resumed_record(
            folder / f"agreement-{file.sha256[:8]}.json",
            LesionFileAgreement,
            partial(_agreement, staging, file, plain, data, judgement.threshold, seed),
        )
        for file in exported.files
    }
    return LesionRunRecord(
        **dict(provenance),
        files=exported.files,
        model=ModelName(name=NAME, version=job.version, architecture=ARCHITECTURE, weights=fitted.weights),
        positive_label=LABELS[1],
        learned=judgement.learned,
        judgement=judgement,
        splits=tested.scores.scores,
        test_calibration_error=tested.scores.scores["test"].figures["calibration_error"],
        altered=score_altered(tested.predictions, data.test, judgement.threshold),
        checks=tested.refusals,
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
        calibrations={name: Calibration(**platt.model_dump()) for name, platt in judgement.calibrations.items()},
        test_metrics={str(name): figure for name, figure in scores.scores["test"].figures.items()},
        left_out_metrics={
            name: {str(figure_name): figure for figure_name, figure in source.figures.items()}
            for name, source in judgement.sources.items()
        },
        provenance=provenance,
    )


def _agreement(
    folder: Path, file: ManifestFile, evaluated: Predictions, data: LesionData, threshold: float, seed: int
) -> LesionFileAgreement:
    """Load a written file like the service does and compare its predictions for test."""
    network = load_on_cpu(folder, file).network
    with torch.inference_mode():
        probability = np.array(
            [network(torch.from_numpy(slice_.grey)[None, None])["probability"].item() for slice_ in data.test]
        )
    groups = [slice_.group for slice_ in data.test] if data.patients_are_known else None
    figures = score(probability, np.array([slice_.label for slice_ in data.test]), threshold, seed, groups).figures
    return LesionFileAgreement(
        largest_difference=float(np.abs(probability - evaluated.probability).max()),
        auc=figures["auc"].value,
        decisions_equal=float(((probability >= threshold) == (evaluated.probability >= threshold)).mean()),
        figures=figures,
    )


def _write(job: LesionJob, record: LesionRunRecord, sets: tuple[PredictedSet, PredictedSet]) -> None:
    """Write predictions, plots, the card, the manifest and its JSON Schema."""
    folder, run_folder = staging_folder(job.models_folder), job.fit.run_folder
    losses = {
        "without left-out slices": run_folder / "left-out-losses.csv",
        "on all slices": run_folder / "network-losses.csv",
    }
    write_predictions(folder / "predictions.csv", sets)
    save_plots(draw_plots(record, *sets, losses), folder / "figures")
    write_schema(LesionRunRecord, folder)
    write_card(folder, record)
    record.write(folder / MANIFEST_NAME)
