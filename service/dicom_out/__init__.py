"""DICOM SEG and SR of a series, written by highdicom; NIfTI masks for slices that came without DICOM headers.

highdicom takes 0.3 s to import and 70 MB: import `service.study_results`, which needs it, for the first result.
"""

from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["binary", "fractional"]
"""Kind of the SEG: masks, or probabilities in 8 bits."""

MISSING: Final = "missing.txt"
"""File of results with the reasons why others are missing; only if one is."""
