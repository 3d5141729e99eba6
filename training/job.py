"""A training run from data to model file; interrupted anywhere, it goes on where it was."""

import csv
import json
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
from training.config import Recipe
from training.data import LABELS, CovidCt, plain_batches
from training.engine import FineTuning, predict_logits
from training.errors import TrainingError
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
from training.figures import draw_misclassified, save_figures
from training.gate import read_images
from training.machine import Machine
from training.network import Deployable, SliceNetwork, load_imagenet
from training.probe import fit_probe, pooled_features
from training.progress import say
from training.quantisation import CALIBRATION_STRIDE, quantise
from training.report import Agreement, FileAgreement, ModelName, Report, Times, history_rows, probability_shares
from training.scores import FigureName, figures_of
from training.seeding import seed_everything


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, on what, and where to put it.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's own.
        run_folder: checkpoints of this run; an interrupted run goes on from them.
        models_folder: gets the model files, metrics.json, predictions.csv and figures.
        other_images: folders of images that are not COVID-CT, by kind, to try the gate on; never trained on.
    """

    recipe: Recipe
    machine: Machine
    weights: Path | None
    run_folder: Path
    models_folder: Path
    version: str
    other_images: Path | None = None


def train(job: Job, data: CovidCt) -> Report:
    """Run the whole job: probe, fine-tuning, threshold on validation, test once, export, reload, report."""
    _claim_run_folder(job, data)
    seed_everything(job.recipe.seed, "weights")
    network = SliceNetwork(job.recipe)
    source = load_imagenet(network, job.recipe, job.weights)
    network = network.to(memory_format=torch.channels_last).to(job.machine.device)
    probe_seconds = _probe(job, network, data)
    tuning = FineTuning(network, job.recipe, job.machine, job.run_folder)
    if tuning.resume():
        say(f"{job.run_folder}: going on after epoch {tuning.history[-1].epoch}")
    tuning.run(data)
    return _finish(job, data, network, tuning, source, probe_seconds)


def _claim_run_folder(job: Job, data: CovidCt) -> None:
    """Write the run's recipe and data into its folder, or check that they are those that are there.

    Raises:
        TrainingError: the folder holds a run of another recipe or of other data.
    """
    job.run_folder.mkdir(parents=True, exist_ok=True)
    path = job.run_folder / "run.json"
    mine = job.recipe.model_dump(mode="json")
    mine |= {f"sha256 of {split.name} data": split.fingerprint().sha256 for split in data}
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(mine, indent=2)))
        return
    theirs = json.loads(path.read_text())
    for field in mine:
        if theirs.get(field) != mine[field]:
            raise TrainingError(
                f"{path}: this run has {field} = {theirs.get(field)}, not {mine[field]}; "
                "pass another --run folder, or --fresh to throw the old run away"
            )


def _probe(job: Job, network: SliceNetwork, data: CovidCt) -> float:
    """Fit the head, or take it from the run's folder; the seconds that it took."""
    if not job.recipe.probe:
        return 0.0
    path = job.run_folder / "probe.pt"
    if path.exists():
        state = torch.load(path, map_location=job.machine.device, weights_only=True)
        network.head.load_state_dict(state["head"])
        return float(state["seconds"])
    started = time.perf_counter()
    fit_probe(network, data.train, job.recipe, job.machine)
    seconds = time.perf_counter() - started
    state = {"head": network.head.state_dict(), "seconds": seconds}
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    say(f"linear probe: {seconds:.0f} s")
    return seconds


def _finish(
    job: Job, data: CovidCt, network: SliceNetwork, tuning: FineTuning, source: str, probe_seconds: float
) -> Report:
    """Everything after training. Test is looked at here only, once."""
    started = time.perf_counter()
    job.models_folder.mkdir(parents=True, exist_ok=True)
    deployable, unrounded = _make_deployable(job, data, network)
    others = read_images(job.other_images) if job.other_images else {}
    results = evaluate(deployable, data, job.recipe, others)
    stored = results.predictions["test"].probabilities
    files = _export(job, data, deployable.cpu(), results)
    report = Report(
        files=tuple(files),
        probability_shares=probability_shares(stored),
        model=ModelName(name=NAME, version=job.version, architecture=architecture_of(job.recipe), weights=source),
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
        history=history_rows(tuning.history),
        kept_epoch=tuning.best.epoch,
        config=config_of(job.recipe),
        data={split.name: split.fingerprint() for split in data},
        git_commit=git_commit(),
        versions=library_versions(),
        machine=str(job.machine),
        wall_time_seconds=Times(
            probe=probe_seconds,
            epochs=sum(record.seconds for record in tuning.history),
            evaluation_and_export=time.perf_counter() - started,
        ),
        peak_memory_bytes=peak_memory_bytes(),
    )
    _write(job.models_folder, report, results, data, tuning)
    return report


def _make_deployable(job: Job, data: CovidCt, network: SliceNetwork) -> tuple[Deployable, torch.Tensor]:
    """The network to export, and the test probabilities before its weights were rounded."""
    recipe, machine = job.recipe, job.machine.exact()
    temperature = 1.0
    if recipe.calibrate:
        temperature = fit_temperature(predict_logits(network, data.val, recipe, machine), data.val.labels)
    unrounded = torch.softmax(predict_logits(network, data.test, recipe, machine) / temperature, 1)[:, 1]
    batches = plain_batches(data.train, recipe.input_size)
    features = pooled_features(network, batches, machine, "fitting the density")
    return make_deployable(network, temperature, features, batches), unrounded


def _export(job: Job, data: CovidCt, deployable: Deployable, results: Results) -> list[ManifestFile]:
    """Write the model files: fp16, and int8 where the head is small; `deployable` is on the CPU."""
    recipe = job.recipe
    size, cpu = recipe.input_size, torch.device("cpu")
    variants: dict[FilePrecision, tuple[Deployable, Mapping[FigureName, Interval]]] = {}
    if recipe.head == "pooled":
        quantised = quantise(deployable, plain_batches(data.train, size)[::CALIBRATION_STRIDE])
        answers = predict(quantised, data.test, size, cpu).probabilities
        threshold = results.threshold.value
        variants["int8"] = quantised, figures_of(answers, data.test.labels, threshold, recipe.seed).figures
    # last, because writing it casts the network
    variants["fp16"] = deployable, results.figures["test"].figures
    files = []
    for precision, (variant, figures) in variants.items():
        card = make_card(variant, recipe, job.version, results, data, precision, figures)
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
    """One row a slice of val and test: split, path, label, probability, out-of-distribution score."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("split", "path", "label", "probability", "ood_score"))
        for split in (data.val, data.test):
            predictions = results.predictions[split.name]
            columns = (predictions.probabilities.tolist(), predictions.ood_scores.tolist())
            for scan, probability, score in zip(split.scans, *columns, strict=True):
                rows.writerow((split.name, scan.path, scan.label, f"{probability:.6f}", f"{score:.6f}"))


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
