"""Which paper a slice was taken from: slices of one share a scanner, a window, a way of printing."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.data.covid_ct import Split

_PREPRINT: Final = re.compile(r"\d{4}\.\d\d\.\d\d\.\d+")
"""medRxiv's and bioRxiv's number of a paper, as in `2020.02.10.20021584-p6-52%0.png`."""

_END_OF_NAME: Final = re.compile(r"[-_%]|\.\w+$")


def group_by_paper(split: Split, patients: Sequence[str]) -> tuple[str, ...]:
    """A group of every slice, so that slices of one paper or of one patient are in the same.

    COVID-CT names its COVID images after the paper: a preprint's number, or what comes before the first `-`, `_` or `%`
    of another. NonCOVID images carry numbers, and are of one group a patient.

    Args:
        split: the slices.
        patients: whose they are, as `read_patients` answers it.
    """
    papers = [
        _paper_of(scan.path) if scan.label else patient for scan, patient in zip(split.scans, patients, strict=True)
    ]
    _, paper = np.unique(papers, return_inverse=True)
    _, patient = np.unique(patients, return_inverse=True)
    # a paper and a patient are linked by a slice of both; what hangs together is a group
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
