"""The error that every expected failure of training raises, and the wording of those of the file system."""


class TrainingError(Exception):
    """Training can't continue; the message is one line that names problem, place and remedy."""


def describe(error: OSError) -> str:
    """Describe an error of the file system: `FILE: No such file or directory`."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
