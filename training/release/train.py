"""A release: train a network, evaluate it, write the model files and metrics.json. An interrupted run resumes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from service.model.card import MANIFEST_NAME, FilePrecision, Interval, ManifestFile
from service.model.file import load_on_cpu
from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt
from training.evaluation.calibration import fit_temperature
from training.evaluation.evaluate import Answers, Evaluation, collect_answers, evaluate, predict
from training.evaluation.plots import (
    draw_confusion,
    draw_curves,
    draw_misclassified,
    draw_reliability,
    draw_roc,
    draw_sample,
)
from training.evaluation.scores import ScoreName, score
from training.learning.features import predict_logits
from training.learning.fit import FitSettings, FittedNetwork, fit
from training.network.deployable import Deployable
from training.release.export import NAME, architecture_of, export, make_card, make_deployable
from training.release.predictions_csv import write_predictions
from training.release.quantisation import calibration_images, quantise
from training.release.report import Agreement, ModelName, Report, Times, compare_answers
from training.run.machine import peak_memory_bytes
from training.run.record import Provenance

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Settings of a release.

    Attributes:
        settings: of the training run.
        models_folder: for the model files, metrics.json, predictions.csv and figures.
        version: of the model, for its card.
    """

    settings: FitSettings
    models_folder: Path
    version: str


def train(job: TrainingJob, data: CovidCt) -> Report:
    """Train, choose temperature and threshold without test, evaluate test once, export, and write the report."""
    settings, recipe = job.settings, job.settings.recipe
    machine = settings.machine.without_autocast()
    fitted = fit(settings, data)
    started = time.perf_counter()
    reference = fitted.reference
    temperature = fit_temperature(reference.logits, reference.split.labels) if recipe.calibrate else 1.0
    deployable = make_deployable(fitted.network, temperature, machine)
    answers = collect_answers(deployable, temperature, data, recipe, reference, machine.device)
    evaluation = evaluate(answers, data, recipe.seed)
    provenance = settings.provenance(data.fingerprints())
    files = _export(job, data, deployable.cpu(), evaluation, provenance)
    architecture = architecture_of(recipe.network)
    report = Report(
        **dict(evaluation),
        **dict(provenance),
        files=tuple(files),
        model=ModelName(name=NAME, version=job.version, architecture=architecture, weights=fitted.source),
        agreement=_agreement(job, data, fitted, answers, evaluation, files),
        history=tuple(fitted.history),
        kept_epoch=fitted.kept_epoch,
        wall_time_seconds=Times(
            probe=fitted.probe_seconds,
            epochs=fitted.epoch_seconds,
            evaluation_and_export=time.perf_counter() - started,
        ),
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job, report, answers, data)
    return report


def _export(
    job: TrainingJob, data: CovidCt, deployable: Deployable, evaluation: Evaluation, provenance: Provenance
) -> list[ManifestFile]:
    """Write the model files: fp16, and int8 if the head is small. `deployable` is on the CPU."""
    recipe = job.settings.recipe
    size = recipe.network.input_size
    job.models_folder.mkdir(parents=True, exist_ok=True)
    variants: dict[FilePrecision, tuple[Deployable, Mapping[ScoreName, Interval]]] = {}
    if recipe.network.head != "classifier":
        quantised = quantise(deployable, calibration_images(data.train, size))
        probabilities = predict(quantised, plain_inputs(data.test, size), _CPU, "evaluating test, int8").probabilities
        scores = score(probabilities, data.test.labels, evaluation.threshold.value, recipe.seed)
        variants["int8"] = quantised, scores.figures
    # last, because writing it casts the network
    variants["fp16"] = deployable, evaluation.splits["test"].figures
    files = []
    for precision, (variant, figures) in variants.items():
        card = make_card(variant, recipe.network, job.version, evaluation, provenance, precision, figures)
        files.append(export(variant, card, job.models_folder))
    return files[::-1]


def _agreement(
    job: TrainingJob,
    data: CovidCt,
    fitted: FittedNetwork,
    answers: Answers,
    evaluation: Evaluation,
    files: list[ManifestFile],
) -> Agreement:
    """Compare the evaluated network with the one that was trained, and with each file, loaded like the service does."""
    machine, size = job.settings.machine.without_autocast(), job.settings.recipe.network.input_size
    logits = predict_logits(fitted.network, data.test, machine, size)
    unrounded = torch.softmax(logits / evaluation.temperature, 1)[:, 1]
    images = plain_inputs(data.test, size)
    own = {
        file.name: predict(load_on_cpu(job.models_folder, file).network, images, _CPU, f"checking {file.name}")
        for file in files
    }
    return Agreement(
        rounding=(unrounded - answers.test.probabilities).abs().max().item(),
        files={name: compare_answers(each, answers.test, data.test.labels, evaluation) for name, each in own.items()},
    )


def _write(job: TrainingJob, report: Report, answers: Answers, data: CovidCt) -> None:
    """Write predictions and plots, then the manifest, which makes the model files valid.

    The sample of slices goes into the run folder, because it must not be published.
    """
    draw_sample(data.train).savefig(job.settings.run_folder / "sample.png", dpi=110)
    write_predictions(job.models_folder / "predictions.csv", answers, data)
    _draw(job.models_folder / "figures", report, answers, data)
    report.write(job.models_folder / MANIFEST_NAME)


def _draw(folder: Path, report: Report, answers: Answers, data: CovidCt) -> None:
    """Write the plots as PNG; none shows an image of the data set. Without fine-tuning there are no curves."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = {
        "roc": draw_roc(report.splits),
        "confusion": draw_confusion({name: split.confusion_matrix for name, split in report.splits.items()}),
        "reliability": draw_reliability(report.calibration),
        "misclassified": draw_misclassified(data.test, answers.test.probabilities, report.threshold.value),
    }
    if len(report.history) > 1:
        plots["curves"] = draw_curves(report.history, report.kept_epoch)
    else:
        (folder / "curves.png").unlink(missing_ok=True)  # of an earlier run
    for name, plot in plots.items():
        # no Software tag: it would change the committed file with every release of matplotlib
        plot.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
