"""A training run from data to model file; interrupted anywhere, it goes on where it was."""

import csv
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from service.artifact import MANIFEST_NAME, FilePrecision, Interval, ManifestFile
from service.files import write_atomically
from training.calibration import fit_temperature
from training.data import LABELS, CovidCt, plain_batches
from training.engine import FineTuning, predict_logits
from training.evaluation import Results, evaluate, predict
from training.export import (
    NAME,
    architecture_of,
    config_of,
    export,
    git_commit,
    library_versions,
    make_card,
    make_deployable,
    predict_with_file,
)
from training.figures import draw_misclassified, draw_sample, save_figures
from training.fitting import Fitted, Fitting, fit
from training.gate import read_images
from training.network import Deployable
from training.probe import pooled_features
from training.quantisation import CALIBRATION_STRIDE, quantise
from training.report import Agreement, FileAgreement, ModelName, Report, Times, history_rows, probability_shares
from training.scores import FigureName, figures_of


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


def write_predictions(path: Path, results: Results, data: CovidCt) -> None:
    """One row a slice of test and of what the threshold was chosen on: split, path, label, probability, score.

    Out-of-fold answers have no out-of-distribution score: those networks are not kept.
    """
    reference, test = results.reference, results.predictions["test"]
    own = reference.name == "val"
    scores = results.predictions["val"].ood_scores.tolist() if own else [None] * len(reference.split.scans)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "path", "label", "probability", "ood_score"))
        for name, split, probabilities, of_split in (
            (reference.name, reference.split, results.chosen_on, scores),
            ("test", data.test, test.probabilities, test.ood_scores.tolist()),
        ):
            for scan, probability, score in zip(split.scans, probabilities.tolist(), of_split, strict=True):
                told = "" if score is None else f"{score:.6f}"
                rows.writerow((name, scan.path, scan.label, f"{probability:.6f}", told))


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
