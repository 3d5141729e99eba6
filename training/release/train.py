"""A training run from data to model file; interrupted anywhere, it goes on where it was."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from service.model.card import MANIFEST_NAME, FilePrecision, Interval, ManifestFile
from training.data.batches import plain_batches
from training.data.covid_ct import LABELS, CovidCt
from training.evaluation.calibration import fit_temperature
from training.evaluation.evaluate import Results, evaluate, predict
from training.evaluation.out_of_distribution import read_images
from training.evaluation.plots import (
    draw_confusion,
    draw_curves,
    draw_misclassified,
    draw_reliability,
    draw_roc,
    draw_sample,
)
from training.evaluation.scores import FigureName, figures_of
from training.learning.features import pooled_features
from training.learning.fine_tuning import FineTuning, predict_logits
from training.learning.fit import Fitted, Fitting, fit
from training.network.deployable import Deployable
from training.release.export import (
    NAME,
    architecture_of,
    config_of,
    export,
    make_card,
    make_deployable,
    predict_with_file,
)
from training.release.predictions_csv import write_predictions
from training.release.quantisation import CALIBRATION_STRIDE, quantise
from training.release.report import Agreement, FileAgreement, ModelName, Report, Times, history_rows, probability_shares
from training.run.atomic_write import write_atomically
from training.run.machine import peak_memory_bytes
from training.run.record import EpochRecord, git_commit, library_versions


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, on what, and where to put it.

    Attributes:
        fitting: how the network is trained.
        models_folder: gets the model files, metrics.json, predictions.csv and figures.
        version: of the model, for its card.
        other_images: folders of images that are not COVID-CT, by kind, to try the gate on; never trained on.
    """

    fitting: Fitting
    models_folder: Path
    version: str
    other_images: Path | None = None


def train(job: Job, data: CovidCt) -> Report:
    """Run the whole job: probe, fine-tuning, threshold without test, test once, export, reload, report."""
    fitted = fit(job.fitting, data)
    # in the run folder, not with what ships: it shows images of the data set
    draw_sample(data.train).savefig(job.fitting.run_folder / "sample.png", dpi=110)
    return _finish(job, data, fitted)


def _finish(job: Job, data: CovidCt, fitted: Fitted) -> Report:
    """Everything after training. Test is looked at here only, once."""
    recipe = job.fitting.recipe
    started = time.perf_counter()
    job.models_folder.mkdir(parents=True, exist_ok=True)
    deployable, unrounded = _make_deployable(job, data, fitted)
    others = read_images(job.other_images) if job.other_images else {}
    results = evaluate(deployable, data, recipe, others, fitted.reference)
    stored = results.predictions["test"].probabilities
    files = _export(job, data, deployable.cpu(), results)
    report = Report(
        files=tuple(files),
        probability_shares=probability_shares(stored),
        model=ModelName(name=NAME, version=job.version, architecture=architecture_of(recipe), weights=fitted.source),
        positive_label=LABELS[1],
        threshold=results.threshold,
        temperature=deployable.temperature,
        out_of_distribution=results.gate,
        splits=results.figures,
        operating_points=results.operating_points,
        calibration=results.calibration,
        audit=results.audit,
        heatmap=results.heatmap,
        agreement=Agreement(
            rounding=(unrounded - stored).abs().max().item(),
            files={file.name: _agreement(job.models_folder, file, data, results) for file in files},
        ),
        history=history_rows(fitted.tuning.history),
        kept_epoch=fitted.tuning.best.epoch,
        config=config_of(recipe),
        data=data.fingerprints(),
        git_commit=git_commit(),
        versions=library_versions(),
        machine=str(job.fitting.machine),
        wall_time_seconds=Times(
            probe=fitted.probe_seconds,
            epochs=sum(record.seconds for record in fitted.tuning.history),
            evaluation_and_export=time.perf_counter() - started,
        ),
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job.models_folder, report, results, data, fitted.tuning)
    return report


def _make_deployable(job: Job, data: CovidCt, fitted: Fitted) -> tuple[Deployable, torch.Tensor]:
    """The network to export, and the test probabilities before its weights were rounded."""
    recipe, machine, network = job.fitting.recipe, job.fitting.machine.exact(), fitted.network
    temperature = 1.0
    if recipe.calibrate:
        temperature = fit_temperature(fitted.reference.logits, fitted.reference.split.labels)
    unrounded = torch.softmax(predict_logits(network, data.test, recipe, machine) / temperature, 1)[:, 1]
    batches = plain_batches(data.train, recipe.input_size)
    features = pooled_features(network, batches, network.head.gate_features, machine, "fitting the density")
    return make_deployable(network, temperature, features, batches), unrounded


def _export(job: Job, data: CovidCt, deployable: Deployable, results: Results) -> list[ManifestFile]:
    """Write the model files: fp16, and int8 where the head is small; `deployable` is on the CPU."""
    recipe = job.fitting.recipe
    size, cpu = recipe.input_size, torch.device("cpu")
    variants: dict[FilePrecision, tuple[Deployable, Mapping[FigureName, Interval]]] = {}
    if recipe.head != "classifier":
        quantised = quantise(deployable, plain_batches(data.train, size)[::CALIBRATION_STRIDE])
        answers = predict(quantised, data.test, size, cpu).probabilities
        threshold = results.threshold.value
        variants["int8"] = quantised, figures_of(answers, data.test.labels, threshold, recipe.seed).figures
    # last, because writing it casts the network
    variants["fp16"] = deployable, results.figures["test"].figures
    made_from = data.fingerprints()
    files = []
    for precision, (variant, figures) in variants.items():
        card = make_card(variant, recipe, job.version, results, made_from, precision, figures)
        files.append(export(variant, card, job.models_folder))
    return files[::-1]


def _agreement(folder: Path, file: ManifestFile, data: CovidCt, results: Results) -> FileAgreement:
    """How far the file's answers to test are from those that the figures were taken from."""
    answers, stored = predict_with_file(folder, file, data.test), results.predictions["test"]
    threshold, gate = results.threshold.value, results.gate.threshold
    auc = figures_of(answers.probabilities, data.test.labels, threshold, 0).figures["auc"].value

    def equal(first: torch.Tensor, second: torch.Tensor) -> float:
        return (first == second).float().mean().item()

    return FileAgreement(
        largest_difference=(answers.probabilities - stored.probabilities).abs().max().item(),
        auc=auc,
        auc_change=auc - results.figures["test"].figures["auc"].value,
        decisions_equal=equal(answers.probabilities >= threshold, stored.probabilities >= threshold),
        verdicts_equal=equal(answers.ood_scores > gate, stored.ood_scores > gate),
    )


def _write(folder: Path, report: Report, results: Results, data: CovidCt, tuning: FineTuning) -> None:
    """Predictions and figures first; the manifest last, because it is what makes the model file count."""
    write_predictions(folder / "predictions.csv", results, data)
    misclassified = draw_misclassified(data.test, results.predictions["test"].probabilities, results.threshold.value)
    save_figures(folder / "figures", tuning.history, report, misclassified)
    text = report.model_dump_json(indent=2) + "\n"
    write_atomically(folder / MANIFEST_NAME, lambda path: path.write_text(text))


def save_figures(folder: Path, history: list[EpochRecord], report: Report, misclassified: Figure) -> None:
    """Write curves, ROC, confusion matrices, reliability and the misclassified scores as PNG.

    None shows an image of the data.

    A run without fine-tuning has no curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "roc": draw_roc(report.splits),
        "confusion": draw_confusion({name: split.confusion_matrix for name, split in report.splits.items()}),
        "reliability": draw_reliability(report.calibration),
        "misclassified": misclassified,
    }
    if len(history) > 1:
        figures["curves"] = draw_curves(history, report.kept_epoch)
    else:
        (folder / "curves.png").unlink(missing_ok=True)  # of an earlier run
    for name, figure in figures.items():
        # no Software tag: it would change the committed file with every release of matplotlib
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
