"""The error that every expected failure of training raises, and the wording of those of the file system."""


class TrainingError(Exception):
    """Training can't continue; the message is one line that names problem, place and remedy.

    Any function of this package may raise it. `__main__` prints it, and `train --check` collects those of the inputs.
    Nothing else handles it, so docstrings name it only where they say in which state it leaves files.
    """


def describe(error: OSError) -> str:
    """Describe an error of the file system: `FILE: No such file or directory`."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
