"""Numbers of a run of `covid-ct predict`."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Numbers of one run.

    Attributes:
        answered, failed: slices of this run.
        without_lungs: slices of a series, above and below the lungs; no failures.
        kept: rows of previous runs.
        skipped: files in folders and zips that are not slices.
    """

    answered: int = 0
    failed: int = 0
    without_lungs: int = 0
    kept: int = 0
    skipped: int = 0

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.answered + self.failed + self.without_lungs + self.kept

    def summary(self) -> str:
        """Return the result as one line."""
        parts = [f"{self.answered} predicted", f"{self.failed} failed"]
        parts += [f"{self.without_lungs} without lungs"] if self.without_lungs else []
        parts += [f"{self.kept} in the output already"] if self.kept else []
        parts += [f"{self.skipped} other files skipped"] if self.skipped else []
        return ", ".join(parts)
