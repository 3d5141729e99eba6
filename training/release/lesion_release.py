"""A release of the recipe `lesion`: train, judge on left-out sources, evaluate test once, export.

Every stage is resumed from the run folder, so that a killed run repeats at most the stage that it was in.
"""

import time
from functools import partial
from typing import Final, get_args

from service.model.card import INVOLVEMENT_BOUNDS, MANIFEST_NAME, PROBABILITY_BOUNDS, AnswerName, ManifestFile
from training.data.covid_ct import LABELS
from training.data.lesion_data import LesionData
from training.evaluation.calibration import calibrated
from training.evaluation.left_out_scores import LeftOutJudgement, judge_left_out
from training.evaluation.official_test import alter, score_altered, score_test
from training.evaluation.plots import save_plot, save_plots
from training.evaluation.predictions import Predictions, resumed_predictions
from training.evaluation.refusals import Refusals, measure_refusals
from training.evaluation.scores import Scores, shares_up_to
from training.learning.lesion_fit import FittedLesions, LesionJob, fit_lesions
from training.learning.lesion_stages import LesionStage
from training.models.export import NAME
from training.models.publish import CARD_NAME, PREDICTIONS_NAME, find_damaged, publish, staging_folder
from training.models.run_record import ModelName, read_finished
from training.network.lesion_reader import LesionReader
from training.release.lesion_card import card_text
from training.release.lesion_export import ARCHITECTURE, compare_file, export_files, make_card
from training.release.lesion_plots import draw_plots, draw_samples
from training.release.lesion_record import ExportedFiles, LesionFileAgreement, LesionRunRecord
from training.release.predictions_csv import PredictedSet, write_predictions
from training.run.atomic_write import write_text
from training.run.loss_table import losses_path, training_seconds
from training.run.machine import peak_memory_bytes
from training.run.processes import current
from training.run.progress import say
from training.run.provenance import Provenance, make_provenance
from training.run.record import write_schema
from training.run.stages import resumed_record

_NETWORKS: Final = {
    "finder": "lung finder",
    "views": "view checker",
    "left-out": "without left-out slices",
    "network": "on all slices",
}
"""Trained networks, by the name of their checkpoint, with their title."""


def release_lesions(job: LesionJob, data: LesionData) -> LesionRunRecord:
    """Train, choose calibration and thresholds on left-out sources, evaluate test once, export and record.

    A finished run is read and not repeated.
    """
    finished = read_finished(job.models_folder, LesionRunRecord, job.version, export_anyway=job.export_anyway)
    if finished:
        say(f"{job.models_folder}: this run is finished; --fresh repeats it")
        current().leave_to_first()
        return finished
    fitted = fit_lesions(job, data.train, data.other_for_training)
    save_plot(draw_samples(job.recipe, fitted.everything), job.run_folder / "samples.png")
    trained = time.perf_counter()
    left_out, judgement = _judge(job, data, fitted)
    reader = _shipped_reader(job, fitted, judgement)
    tests = _predict_test(job, data, fitted, reader)
    splits = score_test(tests["plain"], data, judgement.threshold, job.recipe.seed)
    refusals = _measure_refusals(job, data, reader)
    config = job.recipe.model_dump(mode="json")
    provenance = make_provenance(config, data.fingerprints(), job.inputs, str(job.machine))
    files = _export(job, data, judgement, splits["test"], reader, provenance)
    record = LesionRunRecord(
        **dict(provenance),
        files=files,
        model=ModelName(name=NAME, version=job.version, architecture=ARCHITECTURE, weights=fitted.weights),
        positive_label=LABELS[1],
        learned=judgement.learned,
        judgement=judgement,
        splits=splits,
        test_calibration_error=splits["test"].figures["calibration_error"],
        altered=score_altered(tests, data.test, judgement.threshold),
        checks=refusals,
        agreement=_check_files(job, data, judgement.threshold, tests["plain"], files),
        probability_shares=tuple(shares_up_to(tests["plain"].probability, PROBABILITY_BOUNDS).values()),
        lung_involvement_shares=shares_up_to(tests["plain"].involvement[:, 0], INVOLVEMENT_BOUNDS),
        wall_time_seconds=_training_seconds(job) | {"evaluation_and_export": time.perf_counter() - trained},
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job, record, left_out, PredictedSet("test", data.test, tests["plain"]))
    publish(job.models_folder)
    return record


def _judge(job: LesionJob, data: LesionData, fitted: FittedLesions) -> tuple[PredictedSet, LeftOutJudgement]:
    """Calibrate, choose thresholds and score by the predictions for left-out slices; return them calibrated."""
    LesionStage.JUDGEMENT.announce()
    slices = [slice_ for slice_, out in zip(data.train, fitted.left_out, strict=True) if out]
    network, appearance = fitted.judged.network, fitted.judged.appearance
    reader = LesionReader(fitted.finder, fitted.views, network, appearance, job.recipe.box_size).eval()
    path = job.run_folder / "left-out-predictions.npz"
    reader = reader.to(job.machine.device)
    predictions = resumed_predictions(path, reader, slices, job.machine, "predicting left-out slices")
    judgement = judge_left_out(predictions, slices, job.recipe.seed)
    return PredictedSet("left-out", slices, calibrated(predictions, judgement.calibrations)), judgement


def _shipped_reader(job: LesionJob, fitted: FittedLesions, judgement: LeftOutJudgement) -> LesionReader:
    of_lesion, of_covid = (
        (judgement.calibrations[name].slope, judgement.calibrations[name].offset) for name in get_args(AnswerName)
    )
    network, appearance = fitted.shipped.network, fitted.shipped.appearance
    reader = LesionReader(fitted.finder, fitted.views, network, appearance, job.recipe.box_size, of_lesion, of_covid)
    return reader.eval().half().float().to(job.machine.device)  # figures are those of the fp16 file


def _predict_test(
    job: LesionJob, data: LesionData, fitted: FittedLesions, reader: LesionReader
) -> dict[str, Predictions]:
    """Predict official test by alteration; `plain` in fp32, because altered slices change more than autocast rounds."""
    LesionStage.TEST.announce()
    machines = {"plain": job.machine.without_autocast()}
    return {
        name: resumed_predictions(
            job.run_folder / f"test-{name}-predictions.npz",
            reader,
            slices,
            machines.get(name, job.machine),
            f"predicting test, {name}",
        )
        for name, slices in alter(data.originals, data.test, fitted.finder).items()
    }


def _measure_refusals(job: LesionJob, data: LesionData, reader: LesionReader) -> Refusals:
    LesionStage.REFUSALS.announce()
    others = {"photographs": data.other_for_refusals} if data.other_for_refusals else {}
    slices = [*data.train, *data.test, *data.unseen]
    measure = partial(measure_refusals, reader, slices, others, job.machine, job.recipe.seed)
    return resumed_record(job.run_folder / "checks.json", Refusals, measure)


def _export(
    job: LesionJob,
    data: LesionData,
    judgement: LeftOutJudgement,
    test: Scores,
    reader: LesionReader,
    provenance: Provenance,
) -> tuple[ManifestFile, ...]:
    """Write the model files into the staging folder, unless the network learned nothing."""
    LesionStage.EXPORT.announce()
    staging = staging_folder(job.models_folder)
    if not judgement.learned and not job.export_anyway:
        return ()
    card = partial(make_card, job.version, judgement, test.figures, provenance)

    def write() -> ExportedFiles:
        return ExportedFiles(version=job.version, files=export_files(reader.cpu(), card, data.train, staging))

    return resumed_record(
        job.run_folder / "files.json",
        ExportedFiles,
        write,
        lambda stored: stored.version == job.version and find_damaged(staging, stored.files) is None,
    ).files


def _check_files(
    job: LesionJob, data: LesionData, threshold: float, evaluated: Predictions, files: tuple[ManifestFile, ...]
) -> dict[str, LesionFileAgreement]:
    """Compare the predictions of the written files for test with those of the evaluated network, by file."""
    LesionStage.CHECK.announce()
    staging = staging_folder(job.models_folder)
    return {
        file.name: resumed_record(
            job.run_folder / f"agreement-{file.sha256[:8]}.json",
            LesionFileAgreement,
            partial(compare_file, staging, file, evaluated, data, threshold, job.recipe.seed),
        )
        for file in files
    }


def _training_seconds(job: LesionJob) -> dict[str, float]:
    return {name: training_seconds(losses_path(job.run_folder / name)) for name in _NETWORKS}


def _write(job: LesionJob, record: LesionRunRecord, left_out: PredictedSet, test: PredictedSet) -> None:
    """Write predictions, plots, the card, the manifest and its JSON Schema."""
    folder = staging_folder(job.models_folder)
    losses = {title: losses_path(job.run_folder / name) for name, title in _NETWORKS.items()}
    write_predictions(folder / PREDICTIONS_NAME, (left_out, test))
    save_plots(draw_plots(record, left_out, test, losses), folder / "figures")
    write_schema(LesionRunRecord, folder)
    write_text(folder / CARD_NAME, card_text(record))
    record.write(folder / MANIFEST_NAME)
