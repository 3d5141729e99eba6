"""Command-line options for the fields of a recipe."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from training.recipe import GROUPS, OPTIONAL_GROUPS, Recipe


def recipe_overrides(options: argparse.Namespace) -> dict[str, object]:
    """Return the recipe fields that are on the command line."""
    names = (*OPTIONAL_GROUPS, *_fields())
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def add_recipe_fields(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """Add one option for each recipe field, and one that adds or removes each optional group."""
    own = [name for name in Recipe.model_fields if name not in ("name", *GROUPS)]
    _add_group(parser, "recipe fields; each overrides the value of the recipe", own, without)
    for group, model in GROUPS.items():
        summary = (model.__doc__ or "").splitlines()[0].rstrip(".")
        options = _add_group(parser, f"recipe fields, {group}: {summary}", model.model_fields, without)
        if group in OPTIONAL_GROUPS:
            help_text = "add this group with its defaults, or remove it"
            options.add_argument(f"--{group.replace('_', '-')}", dest=group, metavar="{true,false}", help=help_text)


def _add_group(
    parser: argparse.ArgumentParser, title: str, names: Iterable[str], without: Sequence[str]
) -> "argparse._ArgumentGroup":
    """Add one option per field; pydantic converts and checks its text."""
    options, fields = parser.add_argument_group(title), _fields()
    for name in names:
        if name not in without:
            field = fields[name]
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            kind = getattr(field.annotation, "__name__", "value").upper()
            values = "{" + ",".join(choices) + "}" if choices else kind
            options.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=values, help=field.description)
    return options


def _fields() -> dict[str, FieldInfo]:
    """Return all recipe fields that the command line can override, by their name."""
    own = {name: field for name, field in Recipe.model_fields.items() if name not in ("name", *GROUPS)}
    return own | {name: field for group in GROUPS.values() for name, field in group.model_fields.items()}
