"""Batches for the lesion network: every source and both classes in fixed shares, lesions pasted into clear lungs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice, has_lesion
from training.data.windows import Grey
from training.errors import TrainingError
from training.learning.augmentation import degrade, draw_marks, jitter_tone
from training.learning.lung_crops import FoundLungs, LungCrop, crop_lungs
from training.network.lesion_network import STRIDE

_LABELLED: Final = 0.40
_LESIONS: Final = 0.35
_NO_LESION: Final = 0.05
"""Shares of a batch: slices with a label, with drawn lesions, of the same volumes without; the rest are clear lungs."""

_PASTED: Final = 0.45
"""Share of the clear lungs that get the lesion of another slice."""


_OF_CLEAR: Final = 0.7
"""Weight of a slice that is known to have no lesion, without a drawn mask."""


class Batch(NamedTuple):
    """Slices and targets of one step, with a weight for each target.

    Attributes:
        pictures: float32 (N, 1, H, W), of the box's size.
        lesion, lung: float32 (N, 1, H / 4, W / 4), share of each cell inside the mask.
        lesion_weight, lung_weight, label_weight: float32 (N,), 0 where the target is not known.
        label: float32 (N,), 1 is COVID.
        seeds: int64 (N,), of all random changes of each slice.
    """

    pictures: torch.Tensor
    lesion: torch.Tensor
    lung: torch.Tensor
    lesion_weight: torch.Tensor
    lung_weight: torch.Tensor
    label: torch.Tensor
    label_weight: torch.Tensor
    seeds: torch.Tensor


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Slices that a network is trained on, with their lungs.

    Attributes:
        shares: of each labelled source among the labelled slices; all other sources share that of `None`.
    """

    slices: Sequence[CtSlice]
    lungs: FoundLungs
    shares: Mapping[str | None, float]


@dataclass(slots=True)
class _Sample:
    crop: LungCrop
    lesion: Grey | None = None
    lesion_weight: float = 0.0
    label: float = 0.0
    label_weight: float = 0.0


class LesionSamples:
    """Draws training batches.

    Args:
        seen: slices to learn from, without left-out ones.
        size: height and width of the pictures.
        rng: draws the seed of every sample, so that a run can be resumed.
    """

    def __init__(self, seen: TrainingSet, size: tuple[int, int], rng: np.random.Generator) -> None:
        slices, lungs, shares = seen.slices, seen.lungs, seen.shares
        self._slices, self._lungs, self._size, self._seeds = slices, lungs, size, rng
        self._rng = rng  # of one sample, from its seed
        usable = [i for i in range(len(slices)) if lungs.has_lungs(i)]

        def by_source(wanted: Callable[[CtSlice], bool]) -> list[list[int]]:
            members = [i for i in usable if wanted(slices[i])]
            names = sorted({slices[i].source for i in members})
            return [[i for i in members if slices[i].source == name] for name in names]

        self._drawn = by_source(lambda s: has_lesion(s.lesion))
        self._no_lesion = by_source(lambda s: s.kind == "lesions" and s.lung is not None and not has_lesion(s.lesion))
        self._clear = by_source(lambda s: s.kind == "clear")
        groups = sorted({share_of(slices[i], shares) or "" for i in usable if slices[i].kind == "labelled"})
        self._labelled = [
            [by_source(partial(_is_labelled, shares, group, label)) for label in (0, 1)] for group in groups
        ]
        weights = np.array([shares[group or None] for group in groups])
        self._group_weights = weights / weights.sum()
        self._check()

    def batch(self, size: int, places: Sequence[int] | None = None) -> Batch:
        """Draw one batch, or the samples at some places of it; a sample does not depend on the others."""
        seeds = self._seeds.integers(2**62, size=size)
        places = range(size) if places is None else places
        samples, rows = [], []
        for place in places:
            self._rng = np.random.default_rng(seeds[place])
            samples.append(self._draw())
            rows.append(self._finish(samples[-1]))

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32)

        def stack(k: int) -> torch.Tensor:
            return torch.from_numpy(np.stack([row[k] for row in rows]).astype(np.float32))[:, None]

        return Batch(
            pictures=stack(0),
            lesion=stack(1),
            lung=stack(2),
            lesion_weight=column([sample.lesion_weight for sample in samples]),
            lung_weight=column([0.3 if sample.crop.lung is None else 1.0 for sample in samples]),
            label=column([sample.label for sample in samples]),
            label_weight=column([sample.label_weight for sample in samples]),
            seeds=torch.from_numpy(seeds[list(places)]),
        )

    def position(self) -> Mapping[str, Any]:
        """Return the generator's state, for a checkpoint."""
        return self._seeds.bit_generator.state

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a generator's state."""
        self._seeds.bit_generator.state = position

    def _check(self) -> None:
        """Refuse sources without a usable slice."""
        needed: dict[str, Sequence[Sequence[object]]] = {
            "that is labelled NonCOVID": [group[0] for group in self._labelled],
            "that is labelled COVID": [group[1] for group in self._labelled],
            "with a lesion mask": self._drawn,
            "of the clear ones": self._clear,
        }
        for kind, members in needed.items():
            if not members or not all(members):
                raise TrainingError(
                    f"no lungs were found in any slice {kind}; check that source, or raise --finder-steps"
                )

    def _draw(self) -> _Sample:
        drawn = self._rng.random()
        if drawn < _LABELLED:
            return self._draw_labelled()
        if drawn < _LABELLED + _LESIONS:
            return self._draw_lesion()
        if drawn < _LABELLED + _LESIONS + _NO_LESION and self._no_lesion:
            crop = self._crop(self._choose(self._no_lesion))
            return _Sample(crop, crop.lesion, 1.0)
        return self._draw_clear()

    def _draw_labelled(self) -> _Sample:
        """Draw a slice that teaches its label alone: with `lesion` of clear ones, maps miss lesions elsewhere."""
        group = self._labelled[int(self._rng.choice(len(self._labelled), p=self._group_weights))]
        label = int(self._rng.integers(2))
        crop = self._crop(self._choose(group[label]))
        return _Sample(crop, label=float(label), label_weight=1.0)

    def _draw_lesion(self) -> _Sample:
        crop = self._crop(self._choose(self._drawn))
        sample = _Sample(crop, crop.lesion, 1.0)
        if _share(crop.lesion, crop.found_lung) > 0.02:
            sample.label, sample.label_weight = 1.0, 0.5
        return sample

    def _draw_clear(self) -> _Sample:
        crop = self._crop(self._choose(self._clear))
        sample = _Sample(crop, np.zeros_like(crop.grey), _OF_CLEAR, 0.0, 0.5)
        if self._rng.random() < _PASTED:
            self._paste(sample)
        return sample

    def _paste(self, sample: _Sample) -> None:
        """Paste the lesion of another slice into the lungs, so that the source does not reveal a lesion."""
        donor = self._crop(self._choose(self._drawn))
        assert donor.lesion is not None  # noqa: S101 - donors have lesions
        inside = donor.lesion * (sample.crop.found_lung > 0.5)
        soft = cv2.GaussianBlur(inside, (0, 0), self._rng.uniform(0.6, 2.5)) * np.float32(self._rng.uniform(0.6, 1))
        grey = sample.crop.grey * (1 - soft) + donor.grey * soft
        sample.crop = LungCrop(grey, sample.crop.found_lung, None, sample.crop.lung)
        sample.lesion = (soft > 0.4).astype(np.float32)
        if _share(sample.lesion, sample.crop.found_lung) > 0.03:
            sample.label = 1.0
        else:
            sample.label_weight = 0.0

    def _crop(self, index: int) -> LungCrop:
        return crop_lungs(self._slices[index], self._lungs.lung[index], self._lungs.box[index], self._size, self._rng)

    def _choose(self, sources: Sequence[Sequence[int]]) -> int:
        """Draw a slice; a source is as likely as the root of its number of slices, so that no large one dominates."""
        weights = np.sqrt([len(source) for source in sources])
        source = sources[int(self._rng.choice(len(sources), p=weights / weights.sum()))]
        return source[int(self._rng.integers(len(source)))]

    def _finish(self, sample: _Sample) -> tuple[Grey, Grey, Grey]:
        grey = degrade(draw_marks(jitter_tone(sample.crop.grey, self._rng), self._rng, 0.35), self._rng)
        lesion = np.zeros_like(grey) if sample.lesion is None else sample.lesion
        lung = sample.crop.found_lung if sample.crop.lung is None else sample.crop.lung
        return grey, to_cells(lesion), to_cells(lung)


def to_cells(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a mask of the picture over the decoder's cells: (H, W) -> (H / 4, W / 4)."""
    height, width = mask.shape
    return np.asarray(cv2.resize(mask, (width // STRIDE, height // STRIDE), interpolation=cv2.INTER_AREA), np.float32)


def share_of(slice_: CtSlice, shares: Mapping[str | None, float]) -> str | None:
    """Return the key of a slice's share: its source, or None if the source has no separate share."""
    return slice_.source if slice_.source in shares else None


def _is_labelled(shares: Mapping[str | None, float], group: str, label: int, slice_: CtSlice) -> bool:
    return slice_.kind == "labelled" and slice_.label == label and (share_of(slice_, shares) or "") == group


def _share(lesion: Grey | None, lung: Grey) -> float:
    return 0.0 if lesion is None else float(lesion.sum() / max(1, int((lung > 0.5).sum())))
