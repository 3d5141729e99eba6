"""Training pictures of the lung finder: slices with lungs, other pictures, and contact sheets of slices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.data.masks import Mask, segment_by_threshold
from training.learning.augmentation import Grey, change_window, degrade, draw_marks
from training.network.lung_finder import INPUT_SIZE

Picture = NDArray[np.uint8]

_OTHER: Final = 0.14
_PANELS: Final = 0.10
"""Shares of a batch: pictures that are not axial chest slices, and contact sheets."""

_LETTERS: Final = "abcdefghABCDEFG0123456789"
_GRIDS: Final = ((2, 1), (1, 2), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3), (4, 3), (4, 2), (5, 4), (1, 3))
_FEWEST_SLICES: Final = 14
"""Fewest slices of a volume that is also cut in the other two directions."""


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
        rng: draws everything.
    """

    def __init__(self, slices: Sequence[CtSlice], other: Sequence[CtSlice], rng: np.random.Generator) -> None:
        self._rng = rng
        by_source: dict[str, list[tuple[Picture, Mask]]] = defaultdict(list)
        volumes: dict[tuple[str, str], list[Picture]] = defaultdict(list)
        for slice_ in slices:
            lung = segment_by_threshold(slice_.grey) if slice_.kind == "clear" else slice_.lung
            if lung is not None:
                by_source[slice_.source].append((slice_.grey, lung))
            if slice_.kind == "lesions":
                volumes[slice_.source, slice_.group].append(cast(Picture, cv2.resize(slice_.grey, (192, 192))))
        self._sources = list(by_source.values())
        self._volumes = [np.stack(cuts) for cuts in volumes.values() if len(cuts) >= _FEWEST_SLICES]
        self._slices = [slice_.grey for slice_ in slices]
        self._other = [picture.grey for picture in other]

    def batch(self, size: int) -> LungBatch:
        """Draw one batch."""
        rows = [self._draw() for _ in range(size)]
        pictures, lungs, kinds = zip(*rows, strict=True)
        kind = torch.tensor(kinds)
        return LungBatch(
            torch.from_numpy(np.stack(pictures))[:, None].float(),
            torch.from_numpy(np.stack(lungs))[:, None].float(),
            kind,
            1 - kind[:, 1],
        )

    def draw_other(self) -> Grey:
        """Draw a picture that is not an axial chest slice, or a contact sheet: float32 (128, 128), 0 to 1."""
        return _as_grey(_reduced(self._draw_other() if self._rng.random() < 0.6 else self._draw_panels()))

    def position(self) -> Mapping[str, Any]:
        """Return the generator's state, for a checkpoint."""
        return self._rng.bit_generator.state

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a generator's state."""
        self._rng.bit_generator.state = position

    def _draw(self) -> tuple[Grey, Grey, tuple[float, float]]:
        drawn = self._rng.random()
        if drawn < _OTHER + _PANELS:
            other = drawn < _OTHER
            picture = self._draw_other() if other else self._draw_panels()
            grey = _as_grey(_reduced(picture))
            lung = np.zeros((INPUT_SIZE, INPUT_SIZE), np.float32)
            kind = (1.0, 0.0) if other else (0.0, 1.0)
        else:
            grey, lung = self._draw_slice()
            kind = (0.0, 0.0)
        grey = change_window(grey, self._rng)
        return degrade(draw_marks(grey, self._rng, 0.5), self._rng), lung, kind

    def _draw_slice(self) -> tuple[Grey, Grey]:
        """Draw a slice like one cut out of a figure: moved, stretched, turned, mirrored, or cropped."""
        rng = self._rng
        source = self._sources[int(rng.integers(len(self._sources)))]
        picture, mask = source[int(rng.integers(len(source)))]
        x0, x1, y0, y1 = self._choose_view(mask)
        angle = np.deg2rad(rng.normal(0, 7))
        across, down = INPUT_SIZE / (x1 - x0), INPUT_SIZE / (y1 - y0)
        turn = np.array(
            [[across * np.cos(angle), -down * np.sin(angle)], [across * np.sin(angle), down * np.cos(angle)]]
        )
        if rng.random() < 0.5:
            turn[0] *= -1
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        matrix = np.column_stack([turn, np.full(2, INPUT_SIZE / 2) - turn @ middle])
        grey = _as_grey(picture)
        largest = max(x1 - x0, y1 - y0)
        if largest > 1.6 * INPUT_SIZE:
            grey = cast(Grey, cv2.GaussianBlur(grey, (0, 0), 0.35 * largest / INPUT_SIZE))
        border = float(rng.choice([0, 0, 1, float(grey.mean())]))
        size = (INPUT_SIZE, INPUT_SIZE)
        seen = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(border,))
        lung = cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        return cast(Grey, seen), cast(Grey, lung)

    def _choose_view(self, mask: Mask) -> tuple[float, float, float, float]:
        """Choose the visible part of the slice, in pixels: around the lungs, or around the whole slice."""
        height, width = mask.shape
        if not mask.any() or self._rng.random() >= 0.6:
            edge = self._rng.uniform(-0.15, 0.15, 4)
            return edge[0] * width, width + edge[1] * width, edge[2] * height, height + edge[3] * height
        rows, columns = np.where(mask)
        x0, x1 = float(columns.min()), float(columns.max() + 1)
        y0, y1 = float(rows.min()), float(rows.max() + 1)
        edge = self._rng.uniform(-0.05, 0.5, 4)
        x0, x1 = x0 - edge[0] * (x1 - x0), x1 + edge[1] * (x1 - x0)
        y0, y1 = y0 - edge[2] * (y1 - y0), y1 + edge[3] * (y1 - y0)
        if x1 - x0 < 40:
            x0, x1 = x0 - 40, x1 + 40
        if y1 - y0 < 40:
            y0, y1 = y0 - 40, y1 + 40
        return x0, x1, y0, y1

    def _draw_other(self) -> Picture:
        """Draw a picture that is not an axial chest slice."""
        drawn = self._rng.random()
        if drawn < 0.5 and self._other:
            picture = self._draw_part(self._other[int(self._rng.integers(len(self._other)))])
        elif drawn < 0.8 and self._volumes:
            picture = self._draw_other_direction()
        elif drawn < 0.9:
            cells = int(self._rng.integers(1, 40))
            way = int(self._rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))
            noise = (self._rng.random((cells, cells)) * 255).astype(np.uint8)
            picture = cast(Picture, cv2.resize(noise, (160, 160), interpolation=way))
        else:
            picture = self._draw_page()
        return np.ascontiguousarray(picture[:, ::-1] if self._rng.random() < 0.5 else picture)

    def _draw_part(self, picture: Picture) -> Picture:
        height, width = picture.shape
        share = self._rng.uniform(0.4, 1)
        top, left = int(self._rng.uniform(0, height * (1 - share))), int(self._rng.uniform(0, width * (1 - share)))
        return picture[top : top + int(height * share), left : left + int(width * share)]

    def _draw_other_direction(self) -> Picture:
        """Draw a coronal or sagittal slice of a volume, or its projection, which resembles a scout image."""
        volume = self._volumes[int(self._rng.integers(len(self._volumes)))]
        axis = int(self._rng.integers(1, 3))
        drawn = self._rng.random()
        cut: Picture
        if drawn < 0.4:
            cut = np.asarray(volume.take(int(self._rng.integers(30, 160)), axis=axis), np.uint8)
        elif drawn < 0.5:
            cut = np.asarray(np.max(volume, axis=axis), np.uint8)
        else:
            mean = volume.astype(np.float32).mean(axis=axis)
            cut = ((mean - mean.min()) / (float(np.ptp(mean)) + 1) * 255).astype(np.uint8)
        picture = cast(Picture, cv2.resize(cut, (192, int(self._rng.uniform(120, 260)))))
        return picture[::-1] if self._rng.random() < 0.5 else picture

    def _draw_page(self) -> Picture:
        """Draw text, ellipses and rectangles on a page."""
        rng = self._rng
        page = np.full((200, 200), int(rng.choice([0, 255, int(rng.integers(256))])), np.uint8)
        for _ in range(int(rng.integers(0, 25))):
            at, end = rng.integers(0, 200, 2).tolist(), rng.integers(5, 200, 2).tolist()
            drawn, tint = rng.random(), int(rng.integers(256))
            if drawn < 0.6:
                text = "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=int(rng.integers(2, 16))))
                cv2.putText(page, text, at, int(rng.integers(0, 4)), float(rng.uniform(0.3, 1)), tint, 1, cv2.LINE_AA)
            elif drawn < 0.8:
                cv2.ellipse(page, at, (end[0] // 2, end[1] // 2), float(rng.uniform(0, 180)), 0, 360, tint, -1)
            else:
                cv2.rectangle(page, at, end, tint, int(rng.choice([1, -1])))
        return page

    def _draw_panels(self) -> Picture:
        """Draw a contact sheet of slices."""
        rng = self._rng
        columns, rows = _GRIDS[int(rng.integers(len(_GRIDS)))]
        width = 480 // columns
        height, gap = int(width * rng.uniform(0.65, 1)), int(rng.choice([0, 2, 4, 10]))
        sheet = np.full(
            (rows * (height + gap) + gap, columns * (width + gap) + gap), int(rng.choice([0, 255])), np.uint8
        )
        same = rng.random() < 0.3
        picture = self._slices[int(rng.integers(len(self._slices)))]
        for row in range(rows):
            for column in range(columns):
                if not same or rng.random() < 0.3:
                    picture = self._slices[int(rng.integers(len(self._slices)))]
                top, left = gap + row * (height + gap), gap + column * (width + gap)
                panel = cast(Picture, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
                if rng.random() < 0.3:
                    cv2.putText(panel, "ABCDEFGH"[int(rng.integers(8))], (4, 20), 0, 0.6, 255, 1)
                sheet[top : top + height, left : left + width] = panel
        return sheet


def _as_grey(picture: Picture) -> Grey:
    return picture.astype(np.float32) / np.float32(255)


def _reduced(picture: Picture) -> Picture:
    return cast(Picture, cv2.resize(picture, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA))
