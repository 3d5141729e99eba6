"""One run of the report's experiment: train a network, score test once, write model file and metrics.json."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from service.model.card import MANIFEST_NAME, ManifestFile
from service.model.file import load_on_cpu
from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt
from training.evaluation.calibration import reliability
from training.evaluation.plots import draw_confusion, draw_curves, draw_reliability, draw_roc, save_plots
from training.release.export import NAME, export
from training.release.publish import publish, staging_folder
from training.release.run_record import ModelName, read_finished
from training.report.card import architecture_of, make_card
from training.report.fit import FitSettings, claim, fit
from training.report.network import Deployable
from training.report.predictions_csv import write_predictions
from training.report.record import ReportRunRecord
from training.report.scores import Evaluation, Probabilities, evaluate, predict, predict_splits
from training.run.machine import peak_memory_bytes
from training.run.record import Provenance, write_schema


@dataclass(frozen=True, slots=True)
class ReportJob:
    """Settings of a training run.

    Attributes:
        settings: of the training.
        version: of the model.
        patients: of the test slices, if they are known.
        export_anyway: write a model file even if the network learned nothing.
    """

    settings: FitSettings
    version: str
    patients: Sequence[str] | None = None
    export_anyway: bool = False

    @property
    def models_folder(self) -> Path:
        """Folder for model file, metrics.json, predictions.csv and figures."""
        return self.settings.run_folder / "model"


def run_report(job: ReportJob, data: CovidCt) -> ReportRunRecord:
    """Read the record of a finished run, or run it to its end; an interrupted run resumes.

    A network that learned nothing is scored like any other, but no model file is written.

    Raises:
        TrainingError: the run folder belongs to another run.
    """
    claim(job.settings, data)
    finished = read_finished(job.models_folder, ReportRunRecord, job.version, export_anyway=job.export_anyway)
    return finished or _run(job, data)


def _run(job: ReportJob, data: CovidCt) -> ReportRunRecord:
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
    record = ReportRunRecord(
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
            "training": sum(epoch.seconds for epoch in fitted.history),
            "evaluation_and_export": time.perf_counter() - started,
        },
        peak_memory_bytes=peak_memory_bytes(),
    )
    write_predictions(folder / "predictions.csv", probabilities, data)
    save_plots(_draw(record, probabilities, data), folder / "figures")
    write_schema(ReportRunRecord, folder)
    record.write(folder / MANIFEST_NAME)
    publish(job.models_folder)
    return record


def _export(
    job: ReportJob, deployable: Deployable, evaluation: Evaluation, provenance: Provenance
) -> ManifestFile | None:
    """Write the model file, unless the network learned nothing. `deployable` is on the CPU."""
    if not evaluation.learned and not job.export_anyway:
        return None
    card = make_card(deployable, job.settings.recipe, job.version, evaluation, provenance)
    return export(deployable, card, staging_folder(job.models_folder))


def _difference(job: ReportJob, file: ManifestFile, data: CovidCt, test: torch.Tensor) -> float:
    network = load_on_cpu(staging_folder(job.models_folder), file).network
    images = plain_inputs(data.test, job.settings.recipe.input_size)
    from_file = predict(network, images, torch.device("cpu"), f"checking {file.name}")
    return (from_file - test).abs().max().item()


def _draw(record: ReportRunRecord, probabilities: Probabilities, data: CovidCt) -> dict[str, Figure]:
    """Draw every plot by name; none shows an image of the data set."""
    return {
        "roc": draw_roc(record.splits),
        "confusion": draw_confusion(record.splits),
        "reliability": draw_reliability(
            {
                "val": reliability(probabilities.val, data.val.labels),
                "test": reliability(probabilities.test, data.test.labels),
            }
        ),
        "curves": draw_curves(record.history, record.kept_epoch),
    }
