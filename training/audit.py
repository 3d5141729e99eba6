"""Does the network read disease, or what else tells this data's classes apart? The shortcut audit of an evaluation.

COVID-CT's classes came from different sources in different file formats (the header rule below), so a figure alone says
little: it is put beside what the same network answers when the formats' traces are taken away.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from service.artifact import Interval
from service.image import Slice, decode
from training.data import CovidCt, Split
from training.records import Record
from training.scores import FigureName, Figures, figures_of

_FRAME: Final = 0.06
"""Share of each side that masking blackens: where viewers print names, scales and letters."""

_MARK_LEVEL: Final = 235
"""Grey value from which something may be a printed mark."""

_MARK_EDGE: Final = 3
"""Pixels around a mark that go with it: its smooth edge, and what JPEG made of it."""

_MARK_AREA: Final = 0.005
"""Share of the slice up to which a bright patch counts as a mark: letters and arrows, not the spine."""


class HeaderRule(Record):
    """What test gives away without a pixel: a slice is COVID where its file's format mostly was in training.

    Attributes:
        formats: share of COVID among the training slices of each format and colour mode.
    """

    formats: dict[str, float]
    accuracy: float
    auc: float


class Variant(Record):
    """The model's figures on test with every slice altered alike, and how far they moved."""

    figures: dict[FigureName, Interval]
    auc_change: float
    accuracy_change: float


class Subset(Record):
    """The test slices of one file format: the format can't tell their classes apart.

    Attributes:
        auc: None where only one class occurs.
    """

    count: int
    positives: int
    auc: Interval | None


class Audit(Record):
    """The shortcut audit; thresholds are those of the unaltered evaluation."""

    header_rule: HeaderRule
    variants: dict[str, Variant]
    formats: dict[str, Subset]


def audit_of(
    data: CovidCt, plain: Figures, predict: Callable[[Split], torch.Tensor], probabilities: torch.Tensor, seed: int
) -> Audit:
    """Audit a network.

    Args:
        data: the splits; train is asked for its formats alone.
        plain: figures of test as it is.
        predict: answers probabilities (N,) to a split.
        probabilities: its answers to test as it is.
        seed: of the intervals.
    """
    variants = {}
    for name, alter in ALTERATIONS.items():
        figures = figures_of(predict(altered(data.test, alter)), data.test.labels, plain.threshold, seed).figures
        variants[name] = Variant(
            figures=figures,
            auc_change=figures["auc"].value - plain.figures["auc"].value,
            accuracy_change=figures["accuracy"].value - plain.figures["accuracy"].value,
        )
    return Audit(
        header_rule=header_rule(data, seed),
        variants=variants,
        formats=_by_format(data.test, probabilities, plain.threshold, seed),
    )


def header_rule(data: CovidCt, seed: int) -> HeaderRule:
    """Score the test split by file format and colour mode alone."""
    formats = {scan.encoding for scan in data.train.scans}
    shares = {
        each: float(np.mean([scan.label for scan in data.train.scans if scan.encoding == each])) for each in formats
    }
    prior = data.train.labels.float().mean().item()
    scores = torch.tensor([shares.get(scan.encoding, prior) for scan in data.test.scans])
    figures = figures_of(scores, data.test.labels, 0.5, seed).figures
    return HeaderRule(
        formats=dict(sorted(shares.items())), accuracy=figures["accuracy"].value, auc=figures["auc"].value
    )


def altered(split: Split, alter: Callable[[Slice], Slice]) -> Split:
    """The split with every slice altered; labels and paths stay."""
    return Split(split.name, tuple(replace(scan, ct_slice=alter(scan.ct_slice)) for scan in split.scans))


def reencode(ct_slice: Slice) -> Slice:
    """As a 256 x 256 grey JPEG of quality 75, which leaves the same traces in every slice."""
    file = io.BytesIO()
    _resized(ct_slice, 256, 256).save(file, "JPEG", quality=75)
    return decode(file.getvalue())


def mask(ct_slice: Slice) -> Slice:
    """Without what was printed on it: a black frame, and small bright marks filled from their surroundings."""
    grey: NDArray[np.uint8] = ct_slice[0].copy()
    patches, count = ndimage.label(grey >= _MARK_LEVEL)
    sizes = ndimage.sum_labels(np.ones_like(grey, dtype=np.float64), patches, range(count + 1))
    sizes[0] = np.inf  # what is no mark
    marks = ndimage.binary_dilation((sizes <= _MARK_AREA * grey.size)[patches], iterations=_MARK_EDGE)
    grey[marks] = ndimage.median_filter(grey, size=15)[marks]
    rows, columns = (max(1, round(_FRAME * side)) for side in grey.shape)
    for edge in (grey[:rows], grey[-rows:], grey[:, :columns], grey[:, -columns:]):
        edge[:] = 0
    return grey[np.newaxis]


def downscale(ct_slice: Slice) -> Slice:
    """To half of the network's input, which takes the finer grain of one source away."""
    return np.asarray(_resized(ct_slice, 112, 112))[np.newaxis]


def upscale(ct_slice: Slice) -> Slice:
    """To twice its size."""
    _, height, width = ct_slice.shape
    return np.asarray(_resized(ct_slice, 2 * width, 2 * height))[np.newaxis]


ALTERATIONS: Final[dict[str, Callable[[Slice], Slice]]] = {
    "reencoded": reencode,
    "masked": mask,
    "downscaled": downscale,
    "upscaled": upscale,
}


def _resized(ct_slice: Slice, width: int, height: int) -> Image.Image:
    return Image.fromarray(ct_slice[0]).resize((width, height), Image.Resampling.BILINEAR)


def _by_format(split: Split, probabilities: torch.Tensor, threshold: float, seed: int) -> dict[str, Subset]:
    subsets = {}
    for encoding in sorted({scan.encoding for scan in split.scans}):
        inside = torch.tensor([scan.encoding == encoding for scan in split.scans])
        labels = split.labels[inside]
        positives = int(labels.sum())
        auc = None
        if 0 < positives < len(labels):
            auc = figures_of(probabilities[inside], labels, threshold, seed).figures["auc"]
        subsets[encoding] = Subset(count=len(labels), positives=positives, auc=auc)
    return subsets
