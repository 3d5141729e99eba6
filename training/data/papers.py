"""Groups of slices from one paper, which share a scanner, a window and a style of printing."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.data.covid_ct import Split

_PREPRINT: Final = re.compile(r"\d{4}\.\d\d\.\d\d\.\d+")
"""Number of a paper at medRxiv and bioRxiv, as in `2020.02.10.20021584-p6-52%0.png`."""

_END_OF_NAME: Final = re.compile(r"[-_%]|\.\w+$")


def group_by_paper(split: Split, patients: Sequence[str]) -> tuple[str, ...]:
    """Return the group of each slice, such that slices of one paper or of one patient share a group.

    COVID-CT names COVID images after their paper: the number of a preprint, else the name up to the first `-`, `_` or
    `%`. NonCOVID images have numbers as names; their groups are patients.

    Args:
        split: the slices.
        patients: their patients, from `training.data.patients`.
    """
    papers = [
        _paper_of(slice_.path) if slice_.label else patient
        for slice_, patient in zip(split.slices, patients, strict=True)
    ]
    _, paper = np.unique(papers, return_inverse=True)
    _, patient = np.unique(patients, return_inverse=True)
    # papers and patients are nodes, slices are edges; each connected component is a group
    first = paper.max(initial=-1) + 1
    nodes = first + patient.max(initial=-1) + 1
    links = coo_matrix((np.ones(len(papers)), (paper, first + patient)), shape=(nodes, nodes))
    _, component = connected_components(links, directed=False)
    groups = component[paper].tolist()
    names: dict[int, str] = {}
    for name, group in zip(papers, groups, strict=True):
        names.setdefault(group, name)
    return tuple(names[group] for group in groups)


def _paper_of(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    preprint = _PREPRINT.match(name)
    return f"COVID {preprint[0] if preprint else _END_OF_NAME.split(name, maxsplit=1)[0]}"
