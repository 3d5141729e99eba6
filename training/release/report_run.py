"""One run of the report's experiment: train a network, score test once, write model file and metrics.json."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from service.model.card import MANIFEST_NAME, ManifestFile
from service.model.file import load_on_cpu
from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt
from training.evaluation.calibration import reliability
from training.evaluation.plots import draw_curves, draw_scores, save_plots
from training.evaluation.report_scores import Evaluation, Probabilities, evaluate, predict, predict_splits
from training.learning.report_fit import FitSettings, claim, fit
from training.network.deployable import Deployable
from training.release.export import NAME, architecture_of, export, make_card
from training.release.predictions_csv import write_predictions
from training.release.publish import publish, staging_folder
from training.release.report import ModelName, Report
from training.report_recipe import THRESHOLD
from training.run.machine import peak_memory_bytes
from training.run.progress import warn
from training.run.record import Provenance, write_schema


@dataclass(frozen=True, slots=True)
class ReportJob:
    """Settings of a training run, the model's version for its card, and the patients of test, if they are known."""

    settings: FitSettings
    version: str
    patients: Sequence[str] | None = None

    @property
    def models_folder(self) -> Path:
        """Folder for model file, metrics.json, predictions.csv and figures."""
        return self.settings.run_folder / "model"


def run_report(job: ReportJob, data: CovidCt) -> Report:
    """Read the record of a finished run, or run it to its end; an interrupted run resumes.

    A network that learned nothing is scored like any other, but no model file is written.

    Raises:
        TrainingError: the run folder belongs to another run.
    """
    claim(job.settings, data)
    return _read(job) or _run(job, data)


def _run(job: ReportJob, data: CovidCt) -> Report:
    settings, recipe = job.settings, job.settings.recipe
    machine = settings.machine.without_autocast()
    fitted = fit(settings, data)
    started = time.perf_counter()
    # rounded to fp16 and held in fp32, so that all figures are those of the file
    deployable = Deployable(fitted.network.eval()).to(machine.device).eval().half().float()
    probabilities = predict_splits(deployable, data, recipe.input_size, machine.device)
    was_trained = fitted.kept_epoch > 0
    evaluation = evaluate(probabilities, data, recipe.seed, job.patients, was_trained=was_trained)
    provenance = settings.provenance(data.fingerprints())
    folder = staging_folder(job.models_folder)
    file = _export(job, deployable.cpu(), evaluation, provenance)
    report = Report(
        **dict(evaluation),
        **dict(provenance),
        files=(file,) if file else (),
        model=ModelName(
            name=NAME, version=job.version, architecture=architecture_of(recipe.architecture), weights=fitted.source
        ),
        export_difference=_difference(job, file, data, probabilities.test) if file else None,
        history=tuple(fitted.history),
        kept_epoch=fitted.kept_epoch,
        wall_time_seconds={
            "training": sum(record.seconds for record in fitted.history),
            "evaluation_and_export": time.perf_counter() - started,
        },
        peak_memory_bytes=peak_memory_bytes(),
    )
    write_predictions(folder / "predictions.csv", probabilities, data)
    _draw(folder / "figures", report, probabilities, data)
    write_schema(Report, folder)
    report.write(folder / MANIFEST_NAME)
    publish(job.models_folder)
    return report


def _export(
    job: ReportJob, deployable: Deployable, evaluation: Evaluation, provenance: Provenance
) -> ManifestFile | None:
    """Write the model file, unless the network learned nothing. `deployable` is on the CPU."""
    if not evaluation.learned:
        auc = evaluation.splits["val"].figures["auc"]
        warn(f"no model file: the network learned nothing, AUC on validation {auc.value:.3f} (from {auc.low:.3f})")
        return None
    card = make_card(deployable, job.settings.recipe, job.version, evaluation, provenance)
    return export(deployable, card, staging_folder(job.models_folder))


def _difference(job: ReportJob, file: ManifestFile, data: CovidCt, test: torch.Tensor) -> float:
    network = load_on_cpu(staging_folder(job.models_folder), file).network
    images = plain_inputs(data.test, job.settings.recipe.input_size)
    own = predict(network, images, torch.device("cpu"), f"checking {file.name}")
    return (own - test).abs().max().item()


def _draw(folder: Path, report: Report, probabilities: Probabilities, data: CovidCt) -> None:
    """Write the plots as PNG; none shows an image of the data set."""
    tenths = {
        "val": reliability(probabilities.val, data.val.labels),
        "test": reliability(probabilities.test, data.test.labels),
    }
    plots = draw_scores(report.splits, tenths, data.test.labels, probabilities.test, THRESHOLD)
    plots["curves"] = draw_curves(report.history, report.kept_epoch)
    save_plots(plots, folder)


def _read(job: ReportJob) -> Report | None:
    """Read the record of a finished run; None if there is none of this version."""
    try:
        report = Report.model_validate_json((job.models_folder / MANIFEST_NAME).read_text())
    except (OSError, ValidationError):
        return None
    return report if report.model.version == job.version else None
