"""Training pictures of the view checker: slices upright, turned, inverted, or in soft-tissue and bone windows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import torch

from training.data.ct_slices import CtSlice, has_lesion
from training.data.windows import Grey, as_grey, estimate_hounsfield, show, with_bone
from training.learning.augmentation import change_window, degrade, draw_marks
from training.learning.lung_crops import FoundLungs
from training.learning.other_pictures import OtherPictures
from training.network.lung_finder import INPUT_SIZE

_OTHER: Final = 0.15
_TURNED: Final = 0.25
_INVERTED: Final = 0.2
_OTHER_WINDOW: Final = 0.3
"""Shares: pictures that are not slices; of the slices: turned ones, inverted ones, those in another window."""

_LESIONS: Final = 0.4
"""Share of slices with a drawn lesion, because lungs full of lesion are confused with a wrong window most often."""

_FURTHEST: Final = 0.2
"""Largest distance of the picture's border from the slice's, as a share of the slice."""


class ViewBatch(NamedTuple):
    """Pictures and targets of one step of the view checker.

    Attributes:
        pictures: float32 (N, 1, 128, 128), 0 to 1.
        views: float32 (N, 3): turned, inverted, wrong window.
    """

    pictures: torch.Tensor
    views: torch.Tensor


class ViewPictures:
    """Draws training batches of the view checker.

    Args:
        slices: chest slices in a lung window, upright.
        lungs: those of the slices; slices without lungs are left out.
        other: draws pictures that are not slices.
    """

    def __init__(
        self, slices: Sequence[CtSlice], lungs: FoundLungs, other: OtherPictures, rng: np.random.Generator
    ) -> None:
        self._rng, self._other, self._slices, self._lungs = rng, other, slices, lungs
        usable = [i for i in range(len(slices)) if lungs.has_lungs(i)]
        self._lesions = [i for i in usable if has_lesion(slices[i].lesion)]
        names = sorted({slices[i].source for i in usable})
        self._sources = [[i for i in usable if slices[i].source == name] for name in names]

    def batch(self, size: int) -> ViewBatch:
        """Draw one batch."""
        pictures, views = zip(*(self._draw() for _ in range(size)), strict=True)
        return ViewBatch(torch.from_numpy(np.stack(pictures))[:, None].float(), torch.tensor(views))

    def position(self) -> Mapping[str, Any]:
        """Return the states of both generators, for a checkpoint."""
        return {"slices": self._rng.bit_generator.state, "other": self._other.position()}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from the generators' states."""
        self._rng.bit_generator.state = position["slices"]
        self._other.seek(position["other"])

    def _draw(self) -> tuple[Grey, tuple[float, float, float]]:
        rng = self._rng
        if rng.random() < _OTHER:
            return self._finish(self._other.draw_any(), strong=True), (0.0, 0.0, 0.0)
        turned, inverted, elsewhere = (rng.random() < share for share in (_TURNED, _INVERTED, _OTHER_WINDOW))
        grey = self._draw_slice(self._draw_window() if elsewhere else None)
        grey = self._finish(grey, strong=not elsewhere)
        if inverted:
            grey = 1 - grey
        if turned:
            grey = np.ascontiguousarray(np.rot90(grey, int(rng.integers(1, 4))))
        return grey, (float(turned), float(inverted), float(elsewhere))

    def _draw_window(self) -> tuple[float, float]:
        """Draw the centre and width of a window that shows no lungs, in Hounsfield units."""
        rng = self._rng
        if rng.random() < 0.6:
            return rng.uniform(20, 100), rng.uniform(250, 500)
        return rng.uniform(300, 700), rng.uniform(1200, 2500)

    def _draw_slice(self, window: tuple[float, float] | None) -> Grey:
        """Draw a slice with other borders, a little turned, mirrored; at times in another lung window, if in none."""
        rng = self._rng
        candidates = self._lesions
        if not candidates or rng.random() > _LESIONS:
            candidates = self._sources[int(rng.integers(len(self._sources)))]
        index = candidates[int(rng.integers(len(candidates)))]
        grey = as_grey(self._slices[index].grey)
        if window is None and rng.random() < 0.3:
            window = rng.uniform(-700, -400), rng.uniform(1000, 2000)
        if window is not None:
            hounsfield = estimate_hounsfield(grey, self._lungs.lung[index])
            grey = show(with_bone(hounsfield, grey, rng), window)
        height, width = grey.shape
        angle, scale = float(rng.normal(0, 7)), INPUT_SIZE / (1 + rng.uniform(-_FURTHEST, _FURTHEST, 2))
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        stretch = np.diag([scale[0] / width, scale[1] / height])
        moved = rng.uniform(-_FURTHEST / 2, _FURTHEST / 2, 2) * INPUT_SIZE
        middle = np.array([width / 2, height / 2])
        matrix = np.column_stack([stretch @ matrix[:, :2], stretch @ (matrix[:, 2] - middle) + INPUT_SIZE / 2 + moved])
        small = cv2.GaussianBlur(grey, (0, 0), 0.35 * width / INPUT_SIZE)
        seen = cv2.warpAffine(small, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
        return np.ascontiguousarray(seen[:, ::-1] if rng.random() < 0.5 else seen)

    def _finish(self, grey: Grey, *, strong: bool) -> Grey:
        grey = change_window(grey, self._rng, strong=False) if strong else grey
        return degrade(draw_marks(grey, self._rng, 0.35), self._rng)
