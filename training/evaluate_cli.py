"""The command `evaluate`: existing model files, scored with the code that serves them."""

import argparse

import torch

from service.model.card import ModelCard
from service.model.file import load_on_cpu, read_manifest
from training.data.batches import plain_inputs
from training.data.covid_ct import read_data
from training.data.external_ct import read_external
from training.data.patients import known_patients
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.report_scores import predict
from training.evaluation.scores import score
from training.evaluation.shortcut_audit import header_rule
from training.options import check_paths
from training.report_recipe import ReportRecipe


def evaluate(options: argparse.Namespace) -> None:
    """Score each model file of a folder on test, altered test and other sources; on val if it was not trained on it."""
    check_paths(options, ("data", "models", "external"), ("patients", "exclude"))
    manifest = read_manifest(options.models)
    data = read_data(options.data, options.counts, options.exclude)
    patients = known_patients(options.patients, options.data, data.test)
    external = [read_external(folder, data) for folder in options.external]
    for file in manifest.files:
        artifact = load_on_cpu(options.models, file)
        card = artifact.card
        print(f"{file.name}: {card.name} {card.version}, {card.architecture}, threshold {card.threshold:.3f}")
        splits = {"val": data.val} if _kept_validation_out(card) else {}
        splits["test"] = data.test
        splits |= {f"test, {name}": altered(data.test, alter) for name, alter in ALTERATIONS.items()}
        splits |= {f"external, {split.name}": split for split in external}
        for name, split in splits.items():
            images = plain_inputs(split, card.input_size)
            probabilities = predict(artifact.network, images, torch.device("cpu"), f"evaluating {name}")
            groups = patients if name.startswith("test") else None
            scores = score(probabilities, split.labels, card.threshold, seed=0, groups=groups)
            print(f"{name} {scores}")
            if name == "test" and scores.patients:
                print(f"{name}, by patient {scores.patients}")
    rule = header_rule(data, seed=0)
    print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")


def _kept_validation_out(card: ModelCard) -> bool:
    """Read from a card whether validation only chose the epoch; the recipe `lesion` is trained on it."""
    return bool(card.training_config.get("name") == ReportRecipe.model_fields["name"].default)
