"""Batches for the lesion network: sources in fixed shares, lesions pasted into clear lungs. No label is used."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice, has_lesion
from training.errors import TrainingError
from training.learning.augmentation import Grey, degrade, draw_marks, jitter_tone
from training.learning.lung_crops import FoundLungs, LungCrop, crop_lungs
from training.network.lesion_network import STRIDE

_LESIONS: Final = 0.45
_NO_LESION: Final = 0.10
_UNKNOWN: Final = 0.15
"""Shares of a batch: slices with drawn lesions; of the same volumes without; with lesions that nobody drew, from which
the network learns what a lung is and ImageNet's hint alone. The rest are clear lungs."""

_PASTED: Final = 0.45
"""Share of the clear lungs that get the lesion of another slice."""


_HINTED: Final = 3
"""One of so many slices of a batch gets the hint of ImageNet's layers, which cost a quarter of a step for all."""


class Batch(NamedTuple):
    """Slices and targets of one step, with a weight for each target.

    Attributes:
        pictures: float32 (N, 1, H, W), of the box's size.
        lesion, lung: float32 (N, 1, H / 4, W / 4), share of each cell inside the mask.
        lesion_weight, lung_weight: float32 (N,), 0 where the target is not known.
        hinted: bool (N,), which slices get a hint.
    """

    pictures: torch.Tensor
    lesion: torch.Tensor
    lung: torch.Tensor
    lesion_weight: torch.Tensor
    lung_weight: torch.Tensor
    hinted: torch.Tensor


@dataclass(slots=True)
class _Sample:
    crop: LungCrop
    lesion: Grey | None = None
    lesion_weight: float = 0.0


class LesionSamples:
    """Draws training batches.

    Args:
        slices: to learn from; whatever is left out is not among them.
        found: their lungs.
        size: height and width of the pictures.
        rng: draws the seed of every sample, so that a run can continue where it was.
    """

    def __init__(
        self,
        slices: Sequence[CtSlice],
        found: FoundLungs,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self._slices, self._found, self._size, self._seeds = slices, found, size, rng
        self._rng = rng  # of one sample, from its seed
        usable = [i for i in range(len(slices)) if found.has_lungs(i)]

        def by_source(wanted: Callable[[CtSlice], bool]) -> list[list[int]]:
            own = [i for i in usable if wanted(slices[i])]
            return [[i for i in own if slices[i].source == name] for name in sorted({slices[i].source for i in own})]

        self._drawn = by_source(lambda s: has_lesion(s.lesion))
        self._no_lesion = by_source(lambda s: s.kind == "lesions" and s.lung is not None and not has_lesion(s.lesion))
        self._unknown = by_source(lambda s: s.lesion is None and s.kind == "labelled")
        self._clear = by_source(lambda s: s.kind == "clear" or (s.kind == "labelled" and s.lesion is not None))
        self._check()

    def batch(self, size: int, own: Iterable[int] | None = None) -> Batch:
        """Draw one batch, or the samples at some places of it; a sample does not depend on the others."""
        seeds = self._seeds.integers(2**62, size=size)
        places = range(size) if own is None else list(own)
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
            lesion_weight=column([each.lesion_weight for each in samples]),
            lung_weight=column([0.3 if each.crop.lung is None else 1.0 for each in samples]),
            hinted=torch.tensor([place % _HINTED == 0 for place in places]),
        )

    def position(self) -> Mapping[str, Any]:
        """Return the generator's state, for a checkpoint."""
        return self._seeds.bit_generator.state

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a generator's state."""
        self._seeds.bit_generator.state = position

    def _check(self) -> None:
        """Refuse sources of which nothing can be drawn.

        Raises:
            TrainingError: no lungs were found in any slice of a kind that is needed.
        """
        for kind, members in {"with a lesion mask": self._drawn, "of the clear ones": self._clear}.items():
            if not members:
                raise TrainingError(
                    f"no lungs were found in any slice {kind}; check that source, or raise --finder-steps"
                )

    def _draw(self) -> _Sample:
        drawn = self._rng.random()
        if drawn < _LESIONS:
            crop = self._crop(self._choose(self._drawn))
            return _Sample(crop, crop.lesion, 1.0)
        if drawn < _LESIONS + _NO_LESION and self._no_lesion:
            crop = self._crop(self._choose(self._no_lesion))
            return _Sample(crop, crop.lesion, 1.0)
        if drawn < _LESIONS + _NO_LESION + _UNKNOWN and self._unknown:
            return _Sample(self._crop(self._choose(self._unknown)))
        return self._draw_clear()

    def _draw_clear(self) -> _Sample:
        crop = self._crop(self._choose(self._clear))
        sample = _Sample(crop, np.zeros_like(crop.grey), 0.7)
        if self._rng.random() < _PASTED:
            self._paste(sample)
        return sample

    def _paste(self, sample: _Sample) -> None:
        """Put the lesion of another slice into the lungs, so that no source tells lesion from none."""
        donor = self._crop(self._choose(self._drawn))
        assert donor.lesion is not None  # noqa: S101 - donors have lesions
        inside = donor.lesion * (sample.crop.found > 0.5)
        soft = cv2.GaussianBlur(inside, (0, 0), self._rng.uniform(0.6, 2.5)) * np.float32(self._rng.uniform(0.6, 1))
        grey = sample.crop.grey * (1 - soft) + donor.grey * soft
        sample.crop = LungCrop(grey, sample.crop.found, None, sample.crop.lung)
        sample.lesion = (soft > 0.4).astype(np.float32)

    def _crop(self, index: int) -> LungCrop:
        return crop_lungs(self._slices[index], self._found.lung[index], self._found.box[index], self._size, self._rng)

    def _choose(self, sources: Sequence[Sequence[int]]) -> int:
        """Draw a slice; sources are as likely as the root of their number, so that no large one is nearly all."""
        weights = np.sqrt([len(own) for own in sources])
        own = sources[int(self._rng.choice(len(sources), p=weights / weights.sum()))]
        return own[int(self._rng.integers(len(own)))]

    def _finish(self, sample: _Sample) -> tuple[Grey, Grey, Grey]:
        grey = degrade(draw_marks(jitter_tone(sample.crop.grey, self._rng), self._rng, 0.35), self._rng)
        lesion = np.zeros_like(grey) if sample.lesion is None else sample.lesion
        lung = sample.crop.found if sample.crop.lung is None else sample.crop.lung
        return grey, to_cells(lesion), to_cells(lung)


def to_cells(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a mask of the picture over the decoder's cells: (H, W) -> (H / 4, W / 4)."""
    height, width = mask.shape
    return np.asarray(cv2.resize(mask, (width // STRIDE, height // STRIDE), interpolation=cv2.INTER_AREA), np.float32)
