"""Combines the predictions of the slices of a series: volumes, involvement, severity, probability, label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from service.imaging.lung_borders import INSIDE, lung_borders
from service.imaging.series.geometry import VolumeGeometry
from service.model.card import ModelCard, OperatingPoint
from service.model.prediction import LungInvolvement, NetworkPrediction

RULE: Final = "mean of the log odds of the slices with lungs, weighted by lung volume"
"""Rule from slices to a series; docs/experiments.md compares it with others."""

KEY_SLICES: Final = 3

_KEY_DISTANCE_MM: Final = 10.0
"""Minimum distance between key slices, so that thin neighbours are not repeated."""

_NO_LESION: Final = 0.005
"""Involvement below which a series has no lesions: the two normal patients of COVID-CT-MD have 0.000 and 0.004."""

_CLIP: Final = 1e-4

_MM3_PER_ML: Final = 1000.0


class Severity(StrEnum):
    """Share of the lungs that is affected, in bands: none, up to 25, 50, 75 % and above.

    The bands are those of MosMedData (Morozov et al. 2020, arXiv 2005.06465), where radiologists estimated the share.
    """

    CT_0 = "CT-0"
    CT_1 = "CT-1"
    CT_2 = "CT-2"
    CT_3 = "CT-3"
    CT_4 = "CT-4"


@final
@dataclass(frozen=True, slots=True)
class SeriesAssessment:
    """Result of a series.

    Attributes:
        probability: of the positive class, by `RULE`.
        lesion_probability: by the same rule; None if the network does not predict it.
        covid_given_lesion: the share of the two, so that they multiply like those of a slice.
        label: one of the card's two labels.
        point: the operating point that the label follows from.
        lung_involvement: volume of lesion divided by volume of lung; None if the model does not find lungs.
        severity: band of `lung_involvement.both`.
        lung_volume_ml, lesion_volume_ml: None if the positions of the slices are not known.
        left_lung_volume_ml: the part of `lung_volume_ml` in the patient's left lung.
        borders: column of the maps between the lungs, by index of a slice with lungs; the patient's left is from there.
        key_slices: indices of the slices with most lesion, the most first.
    """

    probability: float
    lesion_probability: float | None
    covid_given_lesion: float | None
    label: str
    point: OperatingPoint
    lung_involvement: LungInvolvement | None
    severity: Severity | None
    lung_volume_ml: float | None
    left_lung_volume_ml: float | None
    lesion_volume_ml: float | None
    borders: Mapping[int, int]
    key_slices: tuple[int, ...]

    def renumbered(self, indices: Sequence[int]) -> "SeriesAssessment":
        """Return the same answer, with `indices` of the slices instead of their places in the answer."""
        return replace(
            self,
            borders={indices[index]: border for index, border in self.borders.items()},
            key_slices=tuple(indices[index] for index in self.key_slices),
        )


@dataclass(frozen=True, slots=True)
class _Areas:
    """Areas by slice as parts of the slice's area, float64 (N,), of both sides and of the patient's left one."""

    lung: NDArray[np.float64]
    lesion: NDArray[np.float64]
    left_lung: NDArray[np.float64]
    left_lesion: NDArray[np.float64]
    borders: Sequence[int]
    has_lungs: bool


def assess_series(
    predictions: Sequence[NetworkPrediction | None],
    geometry: VolumeGeometry | None,
    card: ModelCard,
    point: OperatingPoint,
) -> SeriesAssessment | None:
    """Combine the predictions of the slices that were read.

    Args:
        predictions: in the order of the slices; None for a slice without lungs.
        geometry: of the same slices; None if their positions are not known, so that every slice counts the same.
        card: of the model.
        point: for the label.

    Returns:
        None if no slice has lungs.
    """
    with_lungs = [index for index, prediction in enumerate(predictions) if prediction is not None]
    kept = [prediction for prediction in predictions if prediction is not None]
    if not kept:
        return None
    extents = np.ones(len(kept)) if geometry is None else geometry.thicknesses[with_lungs]
    is_placed = bool(extents.any()) and geometry is not None  # the extent of a single slice is not known
    areas = _areas(kept)
    weights = areas.lung * (extents if is_placed else 1.0)
    probability = _mean([prediction.probability for prediction in kept], weights)
    lesions = [prediction.lesion_probability for prediction in kept if prediction.lesion_probability is not None]
    lesion_probability = _mean(lesions, weights) if len(lesions) == len(kept) else None
    involvement = _involvement(areas, extents if is_placed else np.ones(len(kept))) if areas.has_lungs else None
    ml = extents * geometry.slice_area / _MM3_PER_ML if geometry is not None and is_placed and areas.has_lungs else None
    return SeriesAssessment(
        probability=probability,
        lesion_probability=lesion_probability,
        covid_given_lesion=None if lesion_probability is None else min(1.0, probability / lesion_probability),
        label=card.label_of(probability, lesion_probability, point),
        point=point,
        lung_involvement=involvement,
        severity=None if involvement is None else severity_of(involvement.both),
        lung_volume_ml=None if ml is None else float(ml @ areas.lung),
        left_lung_volume_ml=None if ml is None else float(ml @ areas.left_lung),
        lesion_volume_ml=None if ml is None else float(ml @ areas.lesion),
        borders=dict(zip(with_lungs, areas.borders, strict=True)),
        key_slices=tuple(with_lungs[index] for index in _key_slices(areas, geometry, with_lungs)),
    )


def severity_of(involvement: float) -> Severity:
    """Return the band of an involvement, 0 to 1."""
    if involvement < _NO_LESION:
        return Severity.CT_0
    bands = (Severity.CT_1, Severity.CT_2, Severity.CT_3, Severity.CT_4)
    return bands[sum(involvement > bound for bound in (0.25, 0.5, 0.75))]


def _areas(predictions: Sequence[NetworkPrediction]) -> _Areas:
    """Measure the slices; a model that does not find lungs gives whole slices without lesion."""
    ones = np.ones(len(predictions))
    lung_maps = [prediction.lungs for prediction in predictions if prediction.lungs is not None]
    if len(lung_maps) < len(predictions):
        return _Areas(ones, 0 * ones, ones / 2, 0 * ones, [0] * len(predictions), has_lungs=False)
    lungs = np.stack(lung_maps) >= INSIDE
    lesions = lungs & (np.stack([prediction.heatmap for prediction in predictions]) >= INSIDE)
    borders = lung_borders(lung_maps)
    left = np.arange(lungs.shape[2]) >= np.array(borders)[:, np.newaxis, np.newaxis]
    lung, lesion, left_lung, left_lesion = (
        maps.mean((1, 2)) for maps in (lungs, lesions, lungs & left, lesions & left)
    )
    return _Areas(lung, lesion, left_lung, left_lesion, borders, has_lungs=True)


def _mean(probabilities: Sequence[float], weights: NDArray[np.float64]) -> float:
    """Return the probability of the weighted mean of the log odds."""
    clipped = np.array(probabilities).clip(_CLIP, 1 - _CLIP)
    log_odds = np.log(clipped / (1 - clipped))
    mean = np.average(log_odds, weights=weights) if weights.any() else log_odds.mean()
    return float(1 / (1 + np.exp(-mean)))


def _involvement(areas: _Areas, extents: NDArray[np.float64]) -> LungInvolvement:
    lung, lesion, left_lung, left_lesion = (
        float(extents @ area) for area in (areas.lung, areas.lesion, areas.left_lung, areas.left_lesion)
    )
    return LungInvolvement(
        both=_share(lesion, lung),
        left=_share(left_lesion, left_lung),
        right=_share(lesion - left_lesion, lung - left_lung),
    )


def _share(lesion: float, lung: float) -> float:
    return lesion / lung if lung > 0 else 0.0


def _key_slices(areas: _Areas, geometry: VolumeGeometry | None, with_lungs: Sequence[int]) -> list[int]:
    """Choose the slices with most lesion, or without lesion with most lung, at some distance from each other."""
    order = np.lexsort((areas.lung, areas.lesion))[::-1]
    offsets = None if geometry is None else geometry.offsets[with_lungs]
    chosen: list[int] = []
    for index in order:
        if offsets is None or all(abs(offsets[index] - offsets[other]) >= _KEY_DISTANCE_MM for other in chosen):
            chosen.append(int(index))
    return chosen[:KEY_SLICES]
