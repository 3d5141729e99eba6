"""Commands of `python -m training`: train, crossvalidate, evaluate, compare."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

import torch

from service.model.file import load_on_cpu, read_manifest
from training.data.covid_ct import OFFICIAL_COUNTS, CovidCt, read_covid_ct
from training.data.folds import Folding, read_groups
from training.errors import TrainingError
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.evaluate import predict
from training.evaluation.scores import Figures, figures_of
from training.evaluation.shortcut_audit import header_rule
from training.experiments.comparison import as_table, compare
from training.experiments.cross_validation import as_rows, cross_validate
from training.learning.features import FeatureCache
from training.learning.fit import Fitting
from training.recipe import RECIPES, Recipe
from training.release.train import Job, train
from training.run.machine import find_machine

_ARCHITECTURES: Final = get_args(Recipe.model_fields["architecture"].annotation)


def _train(options: argparse.Namespace) -> None:
    recipe = _recipe(options)
    machine = find_machine(options.device, options.precision, options.workers)
    data = _data(options)
    run_folder = options.run or Path("runs") / recipe.name
    if options.fresh and run_folder.exists():
        shutil.rmtree(run_folder)
    print(f"recipe {recipe.name} on {machine}; run folder {run_folder}", file=sys.stderr)
    fitting = Fitting(recipe, machine, options.weights, run_folder, options.patients)
    job = Job(fitting, options.models, options.model_version, options.other_images)
    report = train(job, data)
    for name, figures in report.splits.items():
        print(_describe(name, figures))
    for name, variant in report.audit.variants.items():
        print(f"test, {name}: auc {variant.auc_change:+.3f}, accuracy {variant.accuracy_change:+.3f}")
    files = ", ".join(str(options.models / file.name) for file in report.files)
    print(f"written: {files} and metrics.json beside it")


def _evaluate(options: argparse.Namespace) -> None:
    """Score every model file of a folder on val and test, as it is and with every slice altered alike.

    Validation is left out where the model was fitted to it: its answers there would flatter it.
    """
    cpu = torch.device("cpu")
    data = _data(options)
    for file in read_manifest(options.models).files:
        artifact = load_on_cpu(options.models, file)
        card = artifact.card
        print(f"{file.name}: {card.name} {card.version}, {card.architecture}, threshold {card.threshold:.3f}")
        fitted_to_val = card.training_config.get("fit_on") == "train+val"
        versions = {"test": data.test} if fitted_to_val else {"val": data.val, "test": data.test}
        versions |= {f"test, {name}": altered(data.test, alter) for name, alter in ALTERATIONS.items()}
        for name, split in versions.items():
            probabilities = predict(artifact.network, split, card.input_size, cpu).probabilities
            print(_describe(name, figures_of(probabilities, split.labels, card.threshold, seed=0)))
    rule = header_rule(data, seed=0)
    print(f"test, by file format alone: accuracy {rule.accuracy:.3f}, auc {rule.auc:.3f}")


def _compare(options: argparse.Namespace) -> None:
    weights = dict(_weights_of(each) for each in options.weights)
    machine = find_machine(options.device, options.precision, options.workers)
    seeds = dict(_seeds_of(each) for each in options.seeds_for)
    data = _data(options)
    fittings, cache = [], FeatureCache()
    for name in options.recipes:
        recipe = RECIPES[name].override(**_overrides(options))
        for architecture, seed in product(options.architectures, seeds.get(name, options.seeds)):
            changed = recipe.override(architecture=architecture, seed=seed)
            folder = options.out / f"{architecture}-{name}-{seed}"
            own = weights.get(architecture)
            fittings.append(Fitting(changed, machine, own, folder, options.patients, cache))
    print(as_table(compare(fittings, data, options.out)))
    print(f"written: {options.out / 'compare.json'}, compare.md and figures beside it")


def _crossvalidate(options: argparse.Namespace) -> None:
    recipe = _recipe(options)
    machine = find_machine(options.device, options.precision, options.workers)
    data = _data(options)
    split = data.train_and_val()
    groups = read_groups(options.patients, split, recipe.together)
    folding = Folding(groups, options.folds, options.repeats, recipe.together)
    if options.fresh and options.out.exists():
        shutil.rmtree(options.out)
    print(f"recipe {recipe.name} on {machine}; folder {options.out}", file=sys.stderr)
    fitting = Fitting(recipe, machine, options.weights, options.out)
    print(as_rows(cross_validate(fitting, split, folding)))
    print(f"written: {options.out / 'crossvalidation.json'} and out-of-fold.csv beside it")


def _weights_of(text: str) -> tuple[str, Path]:
    architecture, separator, path = text.partition("=")
    if not separator or architecture not in _ARCHITECTURES:
        raise TrainingError(f"--weights {text}: say which network's: {' or '.join(_ARCHITECTURES)}, then =FILE")
    return architecture, Path(path)


def _seeds_of(text: str) -> tuple[str, list[int]]:
    recipe, _, seeds = text.partition("=")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if recipe not in RECIPES or not numbers:
        raise TrainingError(f"--seeds-for {text}: say which recipe's: {' or '.join(RECIPES)}, then =0 or =0,1,2")
    return recipe, numbers


def _data(options: argparse.Namespace) -> CovidCt:
    return read_covid_ct(options.data, OFFICIAL_COUNTS if options.counts == "official" else None)


def _recipe(options: argparse.Namespace) -> Recipe:
    return RECIPES[options.recipe].override(**_overrides(options))


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    """The recipe fields that the command line names."""
    return {name: value for name in _overridable() if (value := getattr(options, name, None)) is not None}


def _overridable() -> list[str]:
    return [name for name in Recipe.model_fields if name != "name"]


def _describe(name: str, figures: Figures) -> str:
    parts = [f"{key} {f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for key, f in figures.figures.items()]
    return f"{name} (n = {figures.count}, threshold {figures.threshold:.3f}): " + ", ".join(parts)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train and judge the network that the service serves. Research only, not a medical device.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    evaluate = commands.add_parser("evaluate", help="score the model files of a folder on val and test, altered too")
    _add_data(evaluate)
    evaluate.add_argument("--models", type=Path, default=Path("models"), help="folder with metrics.json (models)")
    evaluate.set_defaults(command=_evaluate)
    _add_compare(commands)
    _add_crossvalidate(commands)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train, evaluate and export a model",
        description="Train, evaluate and export a model. Interrupted, the same command goes on after the last epoch.",
    )
    parser.set_defaults(command=_train)
    _add_data(parser)
    parser.add_argument("--recipe", choices=RECIPES, default="best", help="hyperparameters to start from (best)")
    _add_weights(parser)
    parser.add_argument("--run", type=Path, help="folder of checkpoints (runs/RECIPE)")
    parser.add_argument("--fresh", action="store_true", help="throw away what the run folder holds")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder for the results (models)")
    parser.add_argument("--model-version", default="1.0.0", help="version in the model's card (1.0.0)")
    parser.add_argument(
        "--other-images", type=Path, help="folders of images that are no COVID-CT, by kind, to try the gate on"
    )
    _add_patients(parser)
    _add_machine(parser)
    _add_fields(parser, "recipe fields, each overrides the recipe's value")


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="train several networks, recipes and seeds, and put them side by side",
        description="Train every network under every recipe with every seed on the same split, and write the table. "
        "Interrupted, the same command goes on; runs that have ended are not trained again.",
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
        help="seeds of one recipe instead of --seeds: of one that takes hours; repeatable",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NETWORK=FILE",
        help="ImageNet weights of one network, in torchvision's layout; repeat for the other (default: downloaded)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for it all (runs/compare)")
    _add_patients(parser)
    _add_machine(parser)
    title = "recipe fields, each overrides the value in all recipes"
    _add_fields(parser, title, without=("architecture", "seed"))


def _add_crossvalidate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "crossvalidate",
        help="judge a recipe on patients that it did not see, without test",
        description="Cross-validate a recipe over train and validation, no patient or paper parted, test left alone. "
        "Every epoch of fine-tuning is told, and none is chosen. Interrupted, the same command goes on.",
    )
    parser.set_defaults(command=_crossvalidate)
    _add_data(parser)
    _add_patients(parser, required=True)
    parser.add_argument("--recipe", choices=RECIPES, default="best", help="hyperparameters to start from (best)")
    _add_weights(parser)
    parser.add_argument("--folds", type=int, default=5, help="parts that are held out in turn (5)")
    parser.add_argument("--repeats", type=int, default=3, help="how often the slices are dealt to folds anew (3)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/crossvalidation"), help="folder for it all (runs/crossvalidation)"
    )
    parser.add_argument("--fresh", action="store_true", help="throw away what the folder holds")
    _add_machine(parser)
    _add_fields(parser, "recipe fields, each overrides the recipe's value")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        help="weights to start from, in torchvision's layout (default: torchvision's ImageNet weights, downloaded)",
    )


def _add_fields(parser: argparse.ArgumentParser, title: str, without: Sequence[str] = ()) -> None:
    """One option for each field that a user may override."""
    group = parser.add_argument_group(title)
    for name in _overridable():
        if name not in without:
            _add_field(group, name)


def _add_patients(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--patients",
        type=Path,
        required=required,
        help="CSV of file, class, split and patient, so that no patient is on both sides of a fold",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if any)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="autocast format (auto)"
    )
    parser.add_argument("--workers", type=int, help="processes that augment slices (none on a CPU, up to 8 for a GPU)")


def _add_field(group: "argparse._ArgumentGroup", name: str) -> None:
    """One option for one field; pydantic turns its text into the field's type and checks it."""
    field = Recipe.model_fields[name]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    values = "{" + ",".join(choices) + "}" if choices else getattr(field.annotation, "__name__", "value").upper()
    group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=values, help=field.description)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="checkout of github.com/UCSD-AI4H/COVID-CT")
    parser.add_argument(
        "--counts", choices=("official", "any"), default="official", help="lengths of the split lists (official)"
    )
