"""A table of patients for the small data set: two neighbouring slices of a class are of one patient."""

from pathlib import Path

from training.data.covid_ct import LABELS, Split


def write_patients(path: Path, split: Split) -> Path:
    """Patients are numbered from 0 in both classes, as COVID-CT does; returns `path`."""
    lines = ["file,class,split,patient"]
    for label, name in enumerate(LABELS):
        files = [slice_.path.partition("/")[2] for slice_ in split.slices if slice_.label == label]
        lines += [f"{file},{name},train,Patient {i // 2}" for i, file in enumerate(files)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
