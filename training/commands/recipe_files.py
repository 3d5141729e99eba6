"""Options of a run as a TOML file: presets that ship, and the recipe.toml that every run writes."""

import argparse
import tomllib
from pathlib import Path
from typing import Any, Final

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.errors import TrainingError
from training.run.atomic_write import write_text

KNOWN_LABEL_ERRORS: Final = Path(__file__).parents[1] / "data" / "covid_ct_label_errors.csv"
"""CSV of file, split, class, problem, evidence: the known label errors of COVID-CT."""

RECIPE_NAME: Final = "recipe.toml"
_PRESETS: Final = Path(__file__).parents[1] / "presets"
_NOT_OF_A_RECIPE: Final = {
    *("command", "config", "quiet", "run", "out", "fresh", "check", "threads"),
    *("release", "release_anyway", "export_anyway"),
}
"""Options that are not part of a recipe: folders, output and what happens to the result."""


def preset_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def read_recipe_file(name: str, command: str) -> dict[str, Any]:
    """Read the options of a file, or of the preset of this name, for a command."""
    path = Path(name)
    if not path.is_file():
        path = _PRESETS / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"--config {name}: no such file, nor a preset ({', '.join(preset_names())})") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"--config {name}: can't read the file: {error}") from error
    wanted = values.pop("command", command)
    if wanted != command:
        raise TrainingError(f"--config {name}: it is for the command {wanted}, not {command}")
    return values


def option_fields(recipe: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a recipe that are options of its command, by name."""
    return {name: field for name, field in recipe.model_fields.items() if field.description}


def write_recipe_file(folder: Path, options: argparse.Namespace, recipe: BaseModel) -> None:
    """Write recipe.toml into the folder of a run: every value of the recipe, and the absolute paths of all inputs."""
    values: dict[str, Any] = {"command": options.command}
    given = {name: value for name, value in vars(options).items() if name not in _NOT_OF_A_RECIPE}
    given |= recipe.model_dump(include=set(option_fields(type(recipe))))
    for name, value in given.items():
        if name == "corrections" and value == KNOWN_LABEL_ERRORS:
            continue
        written = "none" if name == "corrections" and value is None else _as_toml(value)
        if written is not None and written != []:
            values[name.replace("_", "-")] = written
    text = f"# python -m training {options.command} --config {RECIPE_NAME}\n{tomli_w.dumps(values)}"
    path = folder / RECIPE_NAME
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _as_toml(value: object) -> object:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, list | tuple):
        return [_as_toml(member) for member in value]
    return value
