"""Entry point of `python -m training`: expected errors are one line on stderr."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from service.errors import ModelFileError
from training.commands.parser import make_parser
from training.errors import TrainingError, describe
from training.run.progress import close_bars, set_quiet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 1 for an error that the user can fix, 130 for an interrupt."""
    options = make_parser().parse_args(arguments)
    set_quiet(options.quiet)
    from training.run.processes import joined  # after the options: it imports torch, which --help does not need

    try:
        with joined():
            import_module(f"training.commands.{options.command}").run(options)
    except (TrainingError, ModelFileError) as error:
        return _fail(f"error: {error}", 1)
    except OSError as error:
        return _fail(f"error: {describe(error)}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue", 130)
    return 0


def _fail(line: str, status: int) -> int:
    close_bars()
    print(line, file=sys.stderr)
    return status


def fix_hash_seed() -> None:
    """Start this process again with a fixed seed of Python's hashes, unless it has one.

    torch.jit.script writes the constants of a layer in the order of a set of strings, so two runs of one seed would
    otherwise write model files that differ in bytes, though not in answers.
    """
    if "PYTHONHASHSEED" not in os.environ:
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the command that is running


if __name__ == "__main__":
    fix_hash_seed()
    sys.exit(main())
