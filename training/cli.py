"""Commands of `python -m training`: train, crossvalidate, evaluate, compare."""

import argparse
import shutil
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Final, get_args

import torch

from service.model.card import ModelCard
from service.model.file import load_on_cpu, read_manifest
from training.data.batches import plain_inputs
from training.data.covid_ct import OFFICIAL_COUNTS, CovidCt, read_covid_ct
from training.data.external_ct import read_external
from training.data.folds import FoldPlan, read_groups
from training.errors import TrainingError
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.evaluate import predict
from training.evaluation.scores import Scores, score
from training.evaluation.shortcut_audit import header_rule
from training.experiments.comparison import as_table, compare
from training.experiments.cross_validation import as_rows, cross_validate
from training.learning.features import FeatureCache
from training.learning.fit import FitSettings
from training.recipe import OPTIONAL_GROUPS, RECIPES, GroupBy, NetworkSettings, Recipe
from training.recipe_options import add_recipe_fields, recipe_overrides
from training.release.train import TrainingJob, train
from training.run.machine import find_machine

_ARCHITECTURES: Final = get_args(NetworkSettings.model_fields["architecture"].annotation)


def _train(options: argparse.Namespace) -> None:
    recipe = RECIPES[options.recipe].override(**recipe_overrides(options))
    machine = find_machine(options.device, options.precision, options.workers)
    data = _data(options)
    run_folder = options.run or Path("runs") / recipe.name
    _delete_if_fresh(options, run_folder)
    print(f"recipe {recipe.name} on {machine}; run folder {run_folder}", file=sys.stderr)
    settings = FitSettings(recipe, machine, options.weights, run_folder, options.patients)
    report = train(TrainingJob(settings, options.models, options.model_version), data)
    for name, scores in report.splits.items():
        print(_line(name, scores))
    for name, variant in report.audit.variants.items():
        print(f"test, {name}: auc {variant.auc_change:+.3f}, accuracy {variant.accuracy_change:+.3f}")
    files = ", ".join(str(options.models / file.name) for file in report.files)
    print(f"written: {files} and metrics.json")


def _evaluate(options: argparse.Namespace) -> None:
    """Score each model file of a folder on val, test, altered test and other sources.

    Validation is left out if the model was fitted to it.
    """
    data = _data(options)
    external = [read_external(folder, data) for folder in options.external]
    for file in read_manifest(options.models).files:
        artifact = load_on_cpu(options.models, file)
        card = artifact.card
        print(f"{file.name}: {card.name} {card.version}, {card.architecture}, threshold {card.threshold:.3f}")
        splits = {"test": data.test} if _fitted_to_validation(card) else {"val": data.val, "test": data.test}
        splits |= {f"test, {name}": altered(data.test, alter) for name, alter in ALTERATIONS.items()}
        splits |= {f"external, {split.name}": split for split in external}
        for name, split in splits.items():
            images = plain_inputs(split, card.input_size)
            answers = predict(artifact.network, images, torch.device("cpu"), f"evaluating {name}")
            print(_line(name, score(answers.probabilities, split.labels, card.threshold, seed=0)))
    rule = header_rule(data, seed=0)
    print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")


def _compare(options: argparse.Namespace) -> None:
    weights = dict(_weights_of(each) for each in options.weights)
    machine = find_machine(options.device, options.precision, options.workers)
    seeds = dict(_seeds_of(each) for each in options.seeds_for)
    data = _data(options)
    overrides, runs, cache = recipe_overrides(options), [], FeatureCache()
    for name in options.recipes:
        recipe = RECIPES[name].override(**_that_exist_in(RECIPES[name], overrides))
        for architecture, seed in product(options.architectures, seeds.get(name, options.seeds)):
            changed = recipe.override(architecture=architecture, seed=seed)
            folder = options.out / f"{architecture}-{name}-{seed}"
            own = weights.get(architecture)
            runs.append(FitSettings(changed, machine, own, folder, options.patients, cache))
    print(as_table(compare(runs, data, options.out)))
    print(f"written: {options.out / 'compare.json'}, compare.md and plots")


def _crossvalidate(options: argparse.Namespace) -> None:
    recipe = RECIPES[options.recipe].override(**recipe_overrides(options))
    machine = find_machine(options.device, options.precision, options.workers)
    data = _data(options)
    split = data.train_and_val()
    groups = read_groups(options.patients, split, options.fold_by)
    plan = FoldPlan(groups, options.folds, options.repeats, options.fold_by)
    _delete_if_fresh(options, options.out)
    print(f"recipe {recipe.name} on {machine}; folder {options.out}", file=sys.stderr)
    settings = FitSettings(recipe, machine, options.weights, options.out)
    print(as_rows(cross_validate(settings, split, plan)))
    print(f"written: {options.out / 'crossvalidation.json'} and out-of-fold.csv")


def _that_exist_in(recipe: Recipe, overrides: Mapping[str, object]) -> dict[str, object]:
    """Keep the overrides of fields that the recipe has; other recipes of a comparison may have the others."""
    return {name: value for name, value in overrides.items() if name in OPTIONAL_GROUPS or name in recipe.flat()}


def _data(options: argparse.Namespace) -> CovidCt:
    return read_covid_ct(options.data, OFFICIAL_COUNTS if options.counts == "official" else None)


def _delete_if_fresh(options: argparse.Namespace, folder: Path) -> None:
    if options.fresh and folder.exists():
        shutil.rmtree(folder)


def _fitted_to_validation(card: ModelCard) -> bool:
    """Read from a card whether the model was fitted to validation; in cards before 1.4, recipes had no groups."""
    probe = card.training_config.get("probe")
    settings = probe if isinstance(probe, dict) else card.training_config
    return settings.get("fit_on") == "train+val"


def _weights_of(text: str) -> tuple[str, Path]:
    architecture, separator, path = text.partition("=")
    if not separator or architecture not in _ARCHITECTURES:
        raise TrainingError(f"--weights {text}: must be {' or '.join(_ARCHITECTURES)}, then =FILE")
    return architecture, Path(path)


def _seeds_of(text: str) -> tuple[str, list[int]]:
    recipe, _, seeds = text.partition("=")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if recipe not in RECIPES or not numbers:
        raise TrainingError(f"--seeds-for {text}: must be {' or '.join(RECIPES)}, then =0 or =0,1,2")
    return recipe, numbers


def _line(name: str, scores: Scores) -> str:
    parts = [f"{key} {f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for key, f in scores.figures.items()]
    return f"{name} (n = {scores.count}, threshold {scores.threshold:.3f}): " + ", ".join(parts)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; each command sets `command`, a function of the parsed options."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train and evaluate the network of the service. Research only, not a medical device.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_crossvalidate(commands)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train, evaluate and export a model",
        description="Train, evaluate and export a model. After an interrupt, the same command resumes the run.",
    )
    parser.set_defaults(command=_train)
    _add_data(parser)
    _add_recipe(parser)
    parser.add_argument("--run", type=Path, help="folder for checkpoints (runs/RECIPE)")
    parser.add_argument("--fresh", action="store_true", help="delete the run folder first")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder for the results (models)")
    parser.add_argument("--model-version", default="1.0.0", help="version in the model's card (1.0.0)")
    _add_patients(parser)
    _add_machine(parser)
    add_recipe_fields(parser)


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("evaluate", help="score the model files of a folder on val, test and altered test")
    parser.set_defaults(command=_evaluate)
    _add_data(parser)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with metrics.json (models)")
    parser.add_argument(
        "--external",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="slices of another source, in sub-folders COVID and NonCOVID, to score too; repeatable",
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="train several networks, recipes and seeds, and compare them",
        description="Train each network with each recipe and each seed on the same split, and write a table. After an "
        "interrupt, the same command resumes; finished runs are not repeated.",
    )
    parser.set_defaults(command=_compare)
    _add_data(parser)
    parser.add_argument("--architectures", nargs="+", choices=_ARCHITECTURES, default=_ARCHITECTURES, help="(all)")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["best"], help="(best)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="(0 1 2 3 4)")
    parser.add_argument(
        "--seeds-for",
        action="append",
        default=[],
        metavar="RECIPE=N,N",
        help="seeds of one recipe instead of --seeds, for example of one that takes hours; repeatable",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="ImageNet weights of one network, in torchvision's layout; repeatable (default: downloaded)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for all results (runs/compare)")
    _add_patients(parser)
    _add_machine(parser)
    add_recipe_fields(parser, without=("architecture", "seed"))


def _add_crossvalidate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "crossvalidate",
        help="score a recipe on patients that it was not trained on, without test",
        description="Cross-validate a recipe over train and validation; test is not used. Slices of a patient or paper "
        "stay in one fold. Each epoch of fine-tuning is reported, and none is chosen. After an interrupt, the same "
        "command resumes.",
    )
    parser.set_defaults(command=_crossvalidate)
    _add_data(parser)
    _add_patients(parser, required=True)
    _add_recipe(parser)
    parser.add_argument("--folds", type=int, default=5, help="number of parts that are held out in turn (5)")
    parser.add_argument("--repeats", type=int, default=3, help="number of random assignments to folds (3)")
    parser.add_argument(
        "--group-by", dest="fold_by", choices=get_args(GroupBy), default="paper", help="slices in one fold (paper)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/crossvalidation"), help="folder for all results (runs/crossvalidation)"
    )
    parser.add_argument("--fresh", action="store_true", help="delete the folder first")
    _add_machine(parser)
    add_recipe_fields(parser, without=("group_by",))


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", choices=RECIPES, default="best", help="hyperparameters to start from (best)")
    parser.add_argument(
        "--weights",
        type=Path,
        help="pretrained weights in torchvision's layout (default: torchvision's ImageNet weights, downloaded)",
    )


def _add_patients(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--patients",
        type=Path,
        required=required,
        help="CSV with the columns file, class, split and patient, so that no patient is on both sides of a fold",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if any)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="autocast format (auto)"
    )
    parser.add_argument("--workers", type=int, help="processes that load slices (CPU: none, GPU: up to 8)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="checkout of github.com/UCSD-AI4H/COVID-CT")
    parser.add_argument(
        "--counts", choices=("official", "any"), default="official", help="lengths of the split lists (official)"
    )
