"""The error that every expected failure of training raises."""


class TrainingError(Exception):
    """Training can't continue; the message is one line that names problem, place and remedy."""
