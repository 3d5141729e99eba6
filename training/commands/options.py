"""Options that several commands share, and options for the fields of a recipe. Imports no torch, so --help is fast."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ValidationError

from training.commands.recipe_files import option_fields, preset_names
from training.errors import TrainingError

RecipeT = TypeVar("RecipeT", bound=BaseModel)


def add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that name COVID-CT."""
    parser.add_argument("--data", type=Path, required=required, help="checkout of github.com/UCSD-AI4H/COVID-CT")
    parser.add_argument(
        "--counts", choices=("official", "any"), default="official", help="lengths of the split lists (official)"
    )
    parser.add_argument(
        "--patients",
        type=Path,
        help="CSV of file, class, split, patient of COVID-CT (in the folder of --data: patients.csv, else COVID-CT's "
        "own COVID-CT-MetaInfo.xlsx and NonCOVID-CT-MetaInfo.csv)",
    )
    parser.add_argument(
        "--exclude", type=Path, help="CSV of file, class: slices of COVID-CT that are not read at all (none)"
    )


def add_labelled(parser: argparse.ArgumentParser, content: str) -> None:
    """Add the repeatable option that names a folder of labelled slices."""
    parser.add_argument(
        "--labelled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help=f"{content}: slices.csv (file, label, source, patient), or folders COVID and NonCOVID; repeatable",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the number of threads."""
    parser.add_argument("--threads", type=positive, metavar="N", help="number of compute threads (one per processor)")


def add_run(parser: argparse.ArgumentParser, option: str, folder: str) -> None:
    """Add the options of a run: its folder, named `option`, device, precision and threads."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"options from a file, such as recipe.toml of another run, or a preset ({', '.join(preset_names())}); "
        "options on the command line come first",
    )
    parser.add_argument(option, type=Path, default=Path(folder), help=f"folder of the run, for everything ({folder})")
    parser.add_argument("--fresh", action="store_true", help="delete the old run's files after all inputs were checked")
    parser.add_argument(
        "--export-anyway", action="store_true", help="write model files even if the network learned nothing"
    )
    add_threads(parser)
    parser.add_argument("--model-version", type=_version, default="1.0.0", help="version in the model's card (1.0.0)")
    parser.add_argument(
        "--device", type=_device, default="auto", help="auto, cpu, cuda, cuda:N or mps (auto: a CUDA GPU if any)"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="autocast format of training (auto: the fastest that the device computes in hardware)",
    )


def add_recipe_fields(parser: argparse.ArgumentParser, recipe: type[BaseModel]) -> None:
    """Add the options of a recipe's fields; pydantic converts and checks their text."""
    group = parser.add_argument_group("recipe fields; each overrides the value of the recipe")
    for name, field in option_fields(recipe).items():
        help_text = f"{field.description} ({field.default})"
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="N", help=help_text)


def read_recipe(options: argparse.Namespace, recipe: type[RecipeT]) -> RecipeT:
    """Build the recipe with the fields that are on the command line."""
    given = {name: getattr(options, name) for name in option_fields(recipe)}
    try:
        return recipe.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise TrainingError(f"--{option} {problem['input']}: {problem['msg']}") from error


def check_paths(options: argparse.Namespace, folders: Sequence[str], files: Sequence[str]) -> None:
    """Check that the folders and files of options, such as `data`, are there, before anything is read."""
    for names, kind, is_there in ((folders, "folder", Path.is_dir), (files, "file", Path.is_file)):
        for name in names:
            value = getattr(options, name)
            for path in value if isinstance(value, list) else [value]:
                if path is not None and not is_there(path):
                    raise TrainingError(f"--{name} {path}: there is no such {kind}")


def positive(text: str) -> int:
    """Convert an option to a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text):
        raise argparse.ArgumentTypeError(f"{text} is not auto, cpu, cuda, cuda:N or mps")
    return text


def _version(text: str) -> str:
    """Accept a version, which can be part of a file name and has an order."""
    try:
        return str(Version(text))
    except InvalidVersion as error:
        raise argparse.ArgumentTypeError(f"{text} is not a version such as 2.1.0") from error
