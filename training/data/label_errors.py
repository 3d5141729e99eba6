"""The table of COVID-CT's known label errors that ships with the code. Imports nothing else, so --help is fast."""

from pathlib import Path
from typing import Final

KNOWN_LABEL_ERRORS: Final = Path(__file__).with_name("covid_ct_label_errors.csv")
"""CSV of file, split, class, problem, evidence."""
