"""Parser of a command line: one-line errors, suggestions for mistyped options, and options from a file."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from training.commands.recipe_files import read_recipe_file
from training.errors import TrainingError


class OptionParser(argparse.ArgumentParser):
    """A parser that reads the options of the file after `--config` first, and suggests the right option for a typo."""

    def __init__(self, **settings: object) -> None:
        # no abbreviations: --seed would be --seeds in one command and an option in another
        super().__init__(**{**settings, "allow_abbrev": False})  # type: ignore[arg-type]

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse like the base class, with the options of `--config` first, and report an unknown option here."""
        given = list(sys.argv[1:] if args is None else args)
        known, unknown = super().parse_known_args([*self._from_config(given), *given], namespace)
        for text in unknown:
            if text.startswith("-"):
                self.error(f"unknown option {text}{self._suggestion(text)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")

    def _suggestion(self, text: str) -> str:
        near = difflib.get_close_matches(text.partition("=")[0], self._option_string_actions, n=1)
        return f"; did you mean {near[0]}?" if near else ""

    def _from_config(self, given: Sequence[str]) -> list[str]:
        """Return the options of the file after `--config`, except those that are on the command line too."""
        file = _config_file(given)
        if not file or "--config" not in self._option_string_actions:
            return []
        try:
            values = read_recipe_file(file, command=self.prog.rpartition(" ")[2])
        except TrainingError as error:
            self.error(str(error))
        on_command_line = {text.partition("=")[0] for text in given}
        options = {f"--{name}": value for name, value in values.items() if f"--{name}" not in on_command_line}
        return [text for option, value in options.items() for text in self._as_arguments(option, value)]

    def _as_arguments(self, option: str, value: object) -> list[str]:
        """Write a value of a TOML file like on a command line."""
        if isinstance(value, bool):
            return [option] if value else []
        if not isinstance(value, list):
            return [f"{option}={value}"]
        action = self._option_string_actions.get(option)
        if action is not None and action.nargs == "+":
            return [option, *map(str, value)]
        return [f"{option}={member}" for member in value]


def _config_file(given: Sequence[str]) -> str | None:
    """Return the value of `--config`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    file: str | None = parser.parse_known_args(given)[0].config
    return file
