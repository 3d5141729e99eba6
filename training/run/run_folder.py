"""The folder of a run: one run owns it, and resumes from its checkpoints."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError
from training.run.atomic_write import write_atomically


def claim_run_folder(folder: Path, mine: Mapping[str, object]) -> None:
    """Write what a run belongs to into its folder, or check that it is what is there.

    Args:
        folder: of the run; made if it is not there.
        mine: the run's settings and the hashes of its data, as JSON has them.

    Raises:
        TrainingError: the folder holds a run of other settings or of other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(mine, indent=2)))
        return
    theirs = json.loads(path.read_text())
    for name in mine:
        if theirs.get(name) != mine[name]:
            raise TrainingError(
                f"{path}: this run has {name} = {theirs.get(name)}, not {mine[name]}; "
                "pass another folder (--run or --out), or --fresh to throw the old run away"
            )


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """What goes wrong while a checkpoint is read and taken over, told as its file's fault.

    Raises:
        TrainingError: it can't be read, or is not of this run.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this run ({error}); --fresh starts over") from error
