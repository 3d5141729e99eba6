"""Commands of `python -m training`: train, report, evaluate."""

import argparse
from pathlib import Path

import torch

from service.model.card import ModelCard
from service.model.file import load_on_cpu, read_manifest
from training.data.batches import plain_inputs
from training.data.external_ct import read_external
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.report_scores import predict
from training.evaluation.scores import score
from training.evaluation.shortcut_audit import header_rule
from training.lesion_cli import add_train
from training.options import add_data, read_data
from training.report_cli import add_report
from training.report_recipe import ReportRecipe


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; each command sets `command`, a function of the parsed options."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train and evaluate the network of the service. Research only, not a medical device.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_train(commands)
    add_report(commands)
    _add_evaluate(commands)
    return parser


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("evaluate", help="score the model files of a folder on test and altered test")
    parser.set_defaults(command=_evaluate)
    add_data(parser)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with metrics.json (models)")
    parser.add_argument(
        "--external",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="slices of another source, in sub-folders COVID and NonCOVID, to score too; repeatable",
    )


def _evaluate(options: argparse.Namespace) -> None:
    """Score each model file of a folder on test, altered test and other sources; on val if it was not trained on it."""
    manifest = read_manifest(options.models)
    data = read_data(options)
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
            print(f"{name} {score(probabilities, split.labels, card.threshold, seed=0)}")
    rule = header_rule(data, seed=0)
    print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")


def _kept_validation_out(card: ModelCard) -> bool:
    """Read from a card whether validation only chose the epoch; the recipe `lesion` is trained on it."""
    return bool(card.training_config.get("name") == ReportRecipe.model_fields["name"].default)
