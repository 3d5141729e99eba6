"""A release of the recipe `lesion`: train, judge on left-out sources, evaluate test once, export.

Every stage is resumed from the run folder, so that a killed run repeats at most the stage that it was in.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from service.model.card import MANIFEST_NAME, AnswerName, ManifestFile, SplitFingerprint
from training.data.covid_ct import LABELS
from training.data.ct_slices import fingerprints
from training.data.lesion_data import LesionData
from training.evaluation.calibration import calibrated
from training.evaluation.left_out_scores import LeftOutJudgement, judge_left_out
from training.evaluation.official_test import OfficialTestScores, alter, score_altered, score_test
from training.evaluation.plots import save_plot, save_plots
from training.evaluation.predictions import Predictions, resumed_predictions
from training.evaluation.refusals import Refusals, measure_refusals
from training.learning.lesion_fit import FittedLesions, LesionFitSettings, fit_lesions
from training.learning.lesion_stages import LesionStage
from training.learning.lesion_training import training_seconds
from training.models.export import NAME
from training.models.publish import PREDICTIONS_NAME, find_damaged, publish, staging_folder
from training.models.run_record import ModelName, read_finished
from training.network.lesion_reader import LesionReader
from training.release.lesion_card import write_card
from training.release.lesion_export import ARCHITECTURE, compare_file, export_files
from training.release.lesion_plots import draw_plots, draw_samples
from training.release.lesion_record import ExportedFiles, LesionFileAgreement, LesionRunRecord
from training.release.predictions_csv import PredictedSet, write_predictions
from training.run.machine import peak_memory_bytes
from training.run.processes import current
from training.run.progress import say
from training.run.provenance import Provenance, make_provenance
from training.run.record import write_schema
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
    save_plot(draw_samples(job.fit.recipe, fitted.everything), job.fit.run_folder / "samples.png")
    trained = time.perf_counter()
    left_out, judgement = _judge(job, data, fitted)
    tested = _test(job, data, fitted, judgement)
    provenance = make_provenance(
        job.fit.recipe.model_dump(mode="json"), job.fingerprints(data), job.inputs, str(job.fit.machine)
    )
    files = _export(job, data, judgement, tested, provenance)
    agreement = _check_files(job, data, judgement.threshold, tested.predictions["plain"], files)
    record = LesionRunRecord(
        **dict(provenance),
        **_scores(data, judgement, tested),
        files=files,
        model=ModelName(name=NAME, version=job.version, architecture=ARCHITECTURE, weights=fitted.weights),
        positive_label=LABELS[1],
        agreement=agreement,
        wall_time_seconds=_training_seconds(job) | {"evaluation_and_export": time.perf_counter() - trained},
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job, record, left_out, PredictedSet("test", data.test, tested.predictions["plain"]))
    publish(job.models_folder)
    return record


def _judge(job: LesionJob, data: LesionData, fitted: FittedLesions) -> tuple[PredictedSet, LeftOutJudgement]:
    """Calibrate, choose thresholds and score by the predictions for left-out slices; return them calibrated."""
    LesionStage.JUDGEMENT.announce()
    slices = [slice_ for slice_, out in zip(data.train, fitted.left_out, strict=True) if out]
    judged, machine = fitted.judged, job.fit.machine
    reader = LesionReader(
        fitted.finder, fitted.views, judged.network, judged.appearance, job.fit.recipe.box_size
    ).eval()
    path = job.fit.run_folder / "left-out-predictions.npz"
    predictions = resumed_predictions(path, reader.to(machine.device), slices, machine, "predicting left-out slices")
    judgement = judge_left_out(predictions, slices, job.fit.recipe.seed)
    return PredictedSet("left-out", slices, calibrated(predictions, judgement.calibrations)), judgement


def _test(job: LesionJob, data: LesionData, fitted: FittedLesions, judgement: LeftOutJudgement) -> _Tested:
    """Evaluate the shipped network on official test, plain and altered, and measure its refusals."""
    LesionStage.TEST.announce()
    seed = job.fit.recipe.seed
    reader = _shipped_reader(job, fitted, judgement)
    predictions = _predict_test(job, data, fitted, reader)
    scores = score_test(
        predictions["plain"],
        data.test,
        data.corrections,
        data.known_papers,
        judgement.threshold,
        seed,
        patients_are_known=data.patients_are_known,
    )
    LesionStage.REFUSALS.announce()
    others = {"photographs": data.other_for_refusals} if data.other_for_refusals else {}
    slices = [*data.train, *data.test, *data.unseen]
    measure = partial(measure_refusals, reader, slices, others, job.fit.machine, seed)
    refusals = resumed_record(job.fit.run_folder / "checks.json", Refusals, measure)
    return _Tested(reader, predictions, scores, refusals)


def _predict_test(
    job: LesionJob, data: LesionData, fitted: FittedLesions, reader: LesionReader
) -> dict[str, Predictions]:
    """Predict official test by alteration; `plain` in fp32, because altered slices change more than autocast rounds."""
    machines = {"plain": job.fit.machine.without_autocast()}
    return {
        name: resumed_predictions(
            job.fit.run_folder / f"test-{name}-predictions.npz",
            reader,
            slices,
            machines.get(name, job.fit.machine),
            f"predicting test, {name}",
        )
        for name, slices in alter(data.originals, data.test, fitted.finder).items()
    }


def _shipped_reader(job: LesionJob, fitted: FittedLesions, judgement: LeftOutJudgement) -> LesionReader:
    of_lesion, of_covid = (
        (judgement.calibrations[name].slope, judgement.calibrations[name].offset) for name in get_args(AnswerName)
    )
    network, appearance = fitted.shipped.network, fitted.shipped.appearance
    reader = LesionReader(
        fitted.finder, fitted.views, network, appearance, job.fit.recipe.box_size, of_lesion, of_covid
    )
    return reader.eval().half().float().to(job.fit.machine.device)  # figures are those of the fp16 file


def _export(
    job: LesionJob, data: LesionData, judgement: LeftOutJudgement, tested: _Tested, provenance: Provenance
) -> tuple[ManifestFile, ...]:
    """Write the model files into the staging folder, unless the network learned nothing."""
    LesionStage.EXPORT.announce()
    staging = staging_folder(job.models_folder)
    if not judgement.learned and not job.export_anyway:
        return ()

    def write() -> ExportedFiles:
        metrics = tested.scores.scores["test"].figures
        files = export_files(tested.reader.cpu(), job.version, judgement, metrics, provenance, data.train, staging)
        return ExportedFiles(version=job.version, files=files)

    return resumed_record(
        job.fit.run_folder / "files.json",
        ExportedFiles,
        write,
        lambda stored: stored.version == job.version and find_damaged(staging, stored.files) is None,
    ).files


def _check_files(
    job: LesionJob, data: LesionData, threshold: float, evaluated: Predictions, files: tuple[ManifestFile, ...]
) -> dict[str, LesionFileAgreement]:
    """Compare the predictions of the written files for test with those of the evaluated network, by file."""
    LesionStage.CHECK.announce()
    groups = [slice_.group for slice_ in data.test] if data.patients_are_known else None
    staging, seed = staging_folder(job.models_folder), job.fit.recipe.seed
    return {
        file.name: resumed_record(
            job.fit.run_folder / f"agreement-{file.sha256[:8]}.json",
            LesionFileAgreement,
            partial(compare_file, staging, file, evaluated, data.test, groups, threshold, seed),
        )
        for file in files
    }


def _scores(data: LesionData, judgement: LeftOutJudgement, tested: _Tested) -> dict[str, Any]:
    """Return the scores of the record, by field."""
    scores = tested.scores
    return {
        "learned": judgement.learned,
        "judgement": judgement,
        "splits": scores.scores,
        "test_calibration_error": scores.scores["test"].figures["calibration_error"],
        "altered": score_altered(tested.predictions, data.test, judgement.threshold),
        "checks": tested.refusals,
        "probability_shares": scores.probability_shares,
        "lung_involvement_shares": scores.lung_involvement_shares,
    }


def _training_seconds(job: LesionJob) -> dict[str, float]:
    return {name: training_seconds(job.fit.run_folder / f"{name}-losses.csv") for name in ("left-out", "network")}


def _write(job: LesionJob, record: LesionRunRecord, left_out: PredictedSet, test: PredictedSet) -> None:
    """Write predictions, plots, the card, the manifest and its JSON Schema."""
    folder, run_folder = staging_folder(job.models_folder), job.fit.run_folder
    losses = {
        "without left-out slices": run_folder / "left-out-losses.csv",
        "on all slices": run_folder / "network-losses.csv",
    }
    write_predictions(folder / PREDICTIONS_NAME, (left_out, test))
    save_plots(draw_plots(record, left_out, test, losses), folder / "figures")
    write_schema(LesionRunRecord, folder)
    write_card(folder, record)
    record.write(folder / MANIFEST_NAME)
