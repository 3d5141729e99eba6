"""Training pictures of the lung finder: slices with lungs, other pictures, and contact sheets of slices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.data.masks import Mask, segment_by_threshold
from training.data.windows import Grey, as_grey
from training.learning.augmentation import change_window, degrade, draw_marks
from training.learning.other_pictures import OtherPictures, Picture
from training.network.lung_finder import INPUT_SIZE

_OTHER: Final = 0.14
_PANELS: Final = 0.10
"""Shares of a batch: pictures that are not axial chest slices, and contact sheets."""

_SMALLEST_SIDE: Final = 40
"""Pixels; a view of fewer is widened by as many on both sides."""

_View: TypeAlias = tuple[float, float, float, float]
"""Left, right, top and bottom of the visible part of a slice, in pixels; it may be larger than the slice."""


class LungBatch(NamedTuple):
    """Pictures and targets of one step of the lung finder.

    Attributes:
        pictures: float32 (N, 1, 128, 128), 0 to 1.
        lung: float32 (N, 1, 128, 128), 1 inside.
        kind: float32 (N, 2): not an axial chest slice, several panels.
        lung_weight: float32 (N,), 0 for contact sheets, which have no lung masks.
    """

    pictures: torch.Tensor
    lung: torch.Tensor
    kind: torch.Tensor
    lung_weight: torch.Tensor


class LungPictures:
    """Draws training batches of the lung finder.

    Args:
        slices: those with lung masks, and clear ones, which are segmented by threshold.
        other: pictures that are not chest slices.
    """

    def __init__(self, slices: Sequence[CtSlice], other: Sequence[CtSlice], rng: np.random.Generator) -> None:
        self._rng = rng
        self._others = OtherPictures(slices, other, rng)
        by_source: dict[str, list[tuple[Picture, Mask]]] = defaultdict(list)
        for slice_ in slices:
            lung = segment_by_threshold(slice_.grey) if slice_.kind == "clear" else slice_.lung
            if lung is not None:
                by_source[slice_.source].append((slice_.grey, lung))
        self._sources = list(by_source.values())

    def batch(self, size: int) -> LungBatch:
        """Draw one batch."""
        pictures, lungs, kinds = zip(*(self._draw() for _ in range(size)), strict=True)
        kind = torch.tensor(kinds)
        return LungBatch(
            torch.from_numpy(np.stack(pictures))[:, None].float(),
            torch.from_numpy(np.stack(lungs))[:, None].float(),
            kind,
            1 - kind[:, 1],
        )

    def position(self) -> Mapping[str, Any]:
        """Return the generator's state, for a checkpoint."""
        return self._others.position()

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a generator's state."""
        self._others.seek(position)

    def _draw(self) -> tuple[Grey, Grey, tuple[float, float]]:
        """Draw a picture, its lungs and its kind."""
        drawn = self._rng.random()
        kind, lung = (0.0, 0.0), np.zeros((INPUT_SIZE, INPUT_SIZE), np.float32)
        if drawn < _OTHER:
            kind, grey = (1.0, 0.0), self._others.draw()
        elif drawn < _OTHER + _PANELS:
            kind, grey = (0.0, 1.0), self._others.draw_contact_sheet()
        else:
            grey, lung = self._draw_slice()
        grey = change_window(grey, self._rng)
        return degrade(draw_marks(grey, self._rng, 0.5), self._rng), lung, kind

    def _draw_slice(self) -> tuple[Grey, Grey]:
        """Draw a slice like one cut out of a figure, moved, stretched, turned, mirrored or cropped, with its lungs."""
        rng = self._rng
        source = self._sources[int(rng.integers(len(self._sources)))]
        picture, mask = source[int(rng.integers(len(source)))]
        view = self._choose_view(mask)
        matrix = _view_matrix(view, np.deg2rad(rng.normal(0, 7)), mirrored=rng.random() < 0.5)
        grey = _blurred(as_grey(picture), view)
        border = float(rng.choice([0, 0, 1, float(grey.mean())]))
        size = (INPUT_SIZE, INPUT_SIZE)
        seen = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(border,))
        lung = cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        return cast(Grey, seen), cast(Grey, lung)

    def _choose_view(self, mask: Mask) -> _View:
        """Choose the visible part of the slice: around the lungs, or around the whole slice."""
        height, width = mask.shape
        if not mask.any() or self._rng.random() >= 0.6:
            edge = self._rng.uniform(-0.15, 0.15, 4)
            return edge[0] * width, width + edge[1] * width, edge[2] * height, height + edge[3] * height
        rows, columns = np.where(mask)
        edge = self._rng.uniform(-0.05, 0.5, 4)
        x0, x1 = _widened(float(columns.min()), float(columns.max() + 1), edge[0], edge[1])
        y0, y1 = _widened(float(rows.min()), float(rows.max() + 1), edge[2], edge[3])
        return x0, x1, y0, y1


def _widened(low: float, high: float, below: float, above: float) -> tuple[float, float]:
    """Widen an interval by shares of its length, and further if it is short."""
    low, high = low - below * (high - low), high + above * (high - low)
    return (low - _SMALLEST_SIDE, high + _SMALLEST_SIDE) if high - low < _SMALLEST_SIDE else (low, high)


def _view_matrix(view: _View, angle: float, *, mirrored: bool) -> NDArray[np.float64]:
    """Affine matrix from the slice's pixels to the finder's input: (2, 3)."""
    x0, x1, y0, y1 = view
    across, down = INPUT_SIZE / (x1 - x0), INPUT_SIZE / (y1 - y0)
    turn = np.array([[across * np.cos(angle), -down * np.sin(angle)], [across * np.sin(angle), down * np.cos(angle)]])
    if mirrored:
        turn[0] *= -1
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return np.column_stack([turn, np.full(2, INPUT_SIZE / 2) - turn @ middle])


def _blurred(grey: Grey, view: _View) -> Grey:
    """Blur a slice that is scaled down by much, so that the sampling has no moiré."""
    largest = max(view[1] - view[0], view[3] - view[2])
    if largest <= 1.6 * INPUT_SIZE:
        return grey
    return cast(Grey, cv2.GaussianBlur(grey, (0, 0), 0.35 * largest / INPUT_SIZE))
