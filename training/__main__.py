"""Entry point of `python -m training`: expected errors are one line on stderr."""

import sys
from collections.abc import Sequence

from service.errors import ModelFileError
from training.cli import make_parser
from training.errors import TrainingError
from training.run.progress import close_bars, set_quiet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 1 for an error that the user can fix, 130 for an interrupt."""
    options = make_parser().parse_args(arguments)
    set_quiet(options.quiet)
    try:
        options.command(options)
    except (TrainingError, ModelFileError) as error:
        return _fail(f"error: {error}", 1)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"error: {where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue", 130)
    return 0


def _fail(line: str, status: int) -> int:
    close_bars()
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
