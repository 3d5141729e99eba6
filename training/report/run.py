"""One run of the report: fine-tune, score validation and test once, write model file and metrics.json."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.model.card import MANIFEST_NAME, PROBABILITY_BOUNDS, Calibration, ManifestFile, ModelCard
from service.model.file import load_on_cpu
from training.data.covid_ct import LABELS, CovidCt, plain_inputs
from training.data.tables import read_rows
from training.evaluation.calibration import reliability
from training.evaluation.plots import draw_confusion, draw_reliability, draw_roc, save_plots
from training.evaluation.scores import shares_up_to
from training.models.export import NAME, common_fields, export
from training.models.publish import PREDICTIONS_NAME, publish, staging_folder
from training.models.run_record import NOT_LEARNED, ModelName, RunRecord, read_finished
from training.report.fine_tuning import EpochRecord, FineTuning
from training.report.network import Deployable, SliceNetwork, load_imagenet
from training.report.plots import draw_curves
from training.report.scores import Evaluation, evaluate, predict, predict_splits
from training.report_recipe import THRESHOLD, ReportRecipe
from training.run.atomic_write import write_csv
from training.run.job import Job
from training.run.machine import peak_memory_bytes
from training.run.progress import say
from training.run.provenance import Provenance, hash_file, make_provenance
from training.run.record import write_schema
from training.run.run_folder import claim_run_folder
from training.run.seeding import seed_everything

_LIMITS: Final = (
    "Trained on a few hundred slices cut out of papers, with both classes from different sources and file formats, so "
    "part of the difference that it learned is not disease. NonCOVID holds other diseases and healthy lungs together. "
    "Never tested on another hospital's data; expect it to fail there. One slice, not a scan; no clinical data."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportJob(Job[ReportRecipe]):
    """Settings of a run of the report; a checkpoint is written at most every `checkpoint_seconds`."""

    checkpoint_seconds: float = 0.0

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of the weights; torchvision's own are checked when they are downloaded."""
        return {"weights": hash_file(self.weights) if self.weights else "torchvision"}


class ReportRunRecord(Evaluation, RunRecord):
    """The content of metrics.json.

    Attributes:
        export_difference: largest absolute difference of a test probability between the model file, loaded like in the
            service on a CPU, and the evaluated network.
        history: one row per epoch, epoch 0 first.
        kept_epoch: epoch of the kept weights.
    """

    export_difference: float | None
    history: tuple[EpochRecord, ...]
    kept_epoch: int


def claim(job: ReportJob, data: CovidCt, *, fresh: bool = False) -> None:
    """Bind the run folder to this recipe, these weights and these data, or check that it is bound to them.

    With `fresh`, the files of an old run in it are deleted first.
    """
    claimed: dict[str, object] = {**job.recipe.model_dump(mode="json")}
    claimed |= {f"sha256 of {name}": value for name, value in job.inputs.items()}
    claimed |= {f"sha256 of {name} data": split.sha256 for name, split in data.fingerprints().items()}
    claim_run_folder(job.run_folder, claimed, fresh=fresh)


def run_report(job: ReportJob, data: CovidCt) -> ReportRunRecord:
    """Read the record of a finished run, or run it to its end; an interrupted run resumes.

    A network that learned nothing is scored like any other, but no model file is written.
    """
    claim(job, data)
    finished = read_finished(job.models_folder, ReportRunRecord, job.version, export_anyway=job.export_anyway)
    return finished or _run(job, data)


def fit(job: ReportJob, data: CovidCt) -> tuple[FineTuning, str]:
    """Fine-tune on train and choose the epoch on validation; test is not used.

    Returns:
        The finished training, whose network has the weights of the best epoch, and the source of the first weights.
    """
    recipe = job.recipe
    seed_everything(recipe.seed, "weights")
    network = SliceNetwork(recipe.architecture)
    source = load_imagenet(network, recipe.architecture, job.weights)
    network = network.to(memory_format=torch.channels_last).to(job.machine.device)
    tuning = FineTuning(network, recipe, job.machine, job.run_folder, job.checkpoint_seconds)
    if tuning.resume():
        say(f"{job.run_folder}: continuing after epoch {tuning.history[-1].epoch}")
    tuning.run(data)
    return tuning, source


def _run(job: ReportJob, data: CovidCt) -> ReportRunRecord:
    recipe = job.recipe
    tuning, source = fit(job, data)
    started, folder = time.perf_counter(), staging_folder(job.models_folder)
    # rounded to fp16 and held in fp32, so that all figures are those of the file
    deployable = Deployable(tuning.network).to(job.machine.device).eval().half().float()
    probabilities = predict_splits(deployable, data, recipe.input_size, job.machine.device)
    evaluation = evaluate(probabilities, data, recipe.seed, was_trained=tuning.best.epoch > 0)
    provenance = make_provenance(recipe.model_dump(mode="json"), data.fingerprints(), job.inputs, str(job.machine))
    files: tuple[ManifestFile, ...] = ()
    if evaluation.learned or job.export_anyway:
        files = (export(deployable, _card(deployable.cpu(), job, evaluation, provenance), folder),)
    record = ReportRunRecord(
        **dict(evaluation),
        **dict(provenance),
        files=files,
        model=ModelName(name=NAME, version=job.version, architecture=_describe(recipe), weights=source),
        positive_label=LABELS[1],
        probability_shares=tuple(shares_up_to(probabilities["test"], PROBABILITY_BOUNDS).values()),
        export_difference=_difference(job, files[0], data, probabilities["test"]) if files else None,
        history=tuple(tuning.history),
        kept_epoch=tuning.best.epoch,
        wall_time_seconds={
            "training": sum(epoch.seconds for epoch in tuning.history),
            "evaluation_and_export": time.perf_counter() - started,
        },
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write_predictions(folder / PREDICTIONS_NAME, probabilities, data)
    save_plots(_draw(record, probabilities, data), folder / "figures")
    write_schema(ReportRunRecord, folder)
    record.write(folder / MANIFEST_NAME)
    publish(job.models_folder)
    return record


def _card(deployable: Deployable, job: ReportJob, evaluation: Evaluation, provenance: Provenance) -> ModelCard:
    return ModelCard(
        **common_fields(deployable, job.version, job.recipe.input_size, "fp16", provenance),
        architecture=_describe(job.recipe),
        threshold=THRESHOLD,
        threshold_rule="fixed at 0.5, as in the report",
        operating_points={"half": THRESHOLD},
        calibration=Calibration(slope=1.0, offset=0.0, rule="none, as in the report"),
        checks={},
        checks_rule="none: the network does not find lungs",
        left_out_metrics={},
        test_metrics={str(name): figure for name, figure in evaluation.splits["test"].figures.items()},
        limits=_LIMITS if evaluation.learned else f"{NOT_LEARNED.format(reason=evaluation.reason)} {_LIMITS}",
    )


def _describe(recipe: ReportRecipe) -> str:
    """Describe the report's network, torchvision's name first."""
    return f"{recipe.architecture} (VGG classifier, two outputs)"


def _difference(job: ReportJob, file: ManifestFile, data: CovidCt, test: torch.Tensor) -> float:
    network = load_on_cpu(staging_folder(job.models_folder), file).network
    images = plain_inputs(data.test, job.recipe.input_size)
    from_file = predict(network, images, torch.device("cpu"), f"checking {file.name}")
    return (from_file - test).abs().max().item()


def _draw(record: ReportRunRecord, probabilities: Mapping[str, torch.Tensor], data: CovidCt) -> dict[str, Figure]:
    """Draw every plot by name; none shows an image of the data set."""
    bins = {split.name: reliability(probabilities[split.name], split.labels) for split in (data.val, data.test)}
    return {
        "roc": draw_roc(record.splits),
        "confusion": draw_confusion(record.splits),
        "reliability": draw_reliability(bins),
        "curves": draw_curves(record.history, record.kept_epoch),
    }


def _write_predictions(path: Path, probabilities: Mapping[str, torch.Tensor], data: CovidCt) -> None:
    """Write one row per slice of validation and of test; a patient that is not known is an empty cell."""
    rows = (
        (split.name, slice_.path, patient, slice_.label, f"{probability:.6f}")
        for split in (data.val, data.test)
        for slice_, patient, probability in zip(
            split.slices,
            split.patients or [""] * len(split.slices),
            probabilities[split.name].tolist(),
            strict=True,
        )
    )
    write_csv(path, ("split", "path", "patient", "label", "probability"), rows)


def read_test_predictions(run_folder: Path) -> NDArray[np.float64]:
    """Read the probabilities of the test split of a finished run, in its order: float64 (N,)."""
    rows = read_rows(run_folder / "model" / PREDICTIONS_NAME, ("split", "probability"))
    return np.array([float(row["probability"]) for row in rows if row["split"] == "test"])
