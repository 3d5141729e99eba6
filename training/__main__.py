"""Entry point of `python -m training`: expected errors are one line on stderr."""

import sys
from collections.abc import Sequence

from service.errors import ModelFileError
from training.cli import make_parser
from training.errors import TrainingError
from training.run.processes import joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 1 for an error that the user can fix, 130 for an interrupt."""
    options = make_parser().parse_args(arguments)
    try:
        with joined():
            options.command(options)
    except (TrainingError, ModelFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
