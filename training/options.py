"""Options that several commands share, and options for the fields of a recipe."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from training.data.covid_ct import OFFICIAL_COUNTS, CovidCt, read_covid_ct
from training.errors import TrainingError

RecipeT = TypeVar("RecipeT", bound=BaseModel)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that name COVID-CT."""
    parser.add_argument("--data", type=Path, required=True, help="checkout of github.com/UCSD-AI4H/COVID-CT")
    parser.add_argument(
        "--counts", choices=("official", "any"), default="official", help="lengths of the split lists (official)"
    )


def read_data(options: argparse.Namespace) -> CovidCt:
    """Read COVID-CT as the options of `add_data` say.

    Raises:
        TrainingError: the data can't be read; the message names the file.
    """
    return read_covid_ct(options.data, OFFICIAL_COUNTS if options.counts == "official" else None)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose device and number format."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if any)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="autocast format (auto)"
    )


def add_recipe_fields(parser: argparse.ArgumentParser, recipe: type[BaseModel], without: Collection[str]) -> None:
    """Add one option for each field of a recipe, except some; pydantic converts and checks its text."""
    group = parser.add_argument_group("recipe fields; each overrides the value of the recipe")
    for name, field in recipe.model_fields.items():
        if name not in without:
            help_text = f"{field.description} ({field.default})"
            group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="N", help=help_text)


def read_recipe(options: argparse.Namespace, recipe: type[RecipeT], without: Collection[str]) -> RecipeT:
    """Build the recipe with the fields that are on the command line.

    Raises:
        TrainingError: a value is no number or out of range; the message names the option.
    """
    given = {name: getattr(options, name) for name in recipe.model_fields if name not in without}
    try:
        return recipe.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise TrainingError(f"--{option} {problem['input']}: {problem['msg']}") from error
