"""The folder of a run: it belongs to one run, which resumes from the checkpoints in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError
from training.run.atomic_write import write_atomically
from training.run.processes import first_only


@first_only
def claim_run_folder(folder: Path, settings: Mapping[str, object]) -> None:
    """Write the run's settings into its folder, or check that those in it are the same.

    Args:
        folder: of the run; created if it does not exist.
        settings: of the run, with hashes of its data, as JSON values.

    Raises:
        TrainingError: the folder belongs to a run with other settings or other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(settings, indent=2)))
        return
    found, mine = _flat(json.loads(path.read_text())), _flat(settings)
    for name in (*mine, *found):
        if found.get(name) != mine.get(name):
            raise TrainingError(
                f"{path}: this run has {name} = {found.get(name)}, not {mine.get(name)}; "
                "pass another folder (--run or --out), or --fresh to delete the old run"
            )


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Report errors while a checkpoint is read and applied as errors of its file.

    Raises:
        TrainingError: the checkpoint can't be read, or belongs to another run.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this run ({error}); --fresh starts over") from error


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Replace each group of settings by its members, named `group.member`."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
