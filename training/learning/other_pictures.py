"""Pictures that are not one axial chest slice: other pictures, other directions of volumes, and contact sheets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.ct_slices import CtSlice
from training.data.windows import Grey, as_grey
from training.network.lung_finder import INPUT_SIZE

Picture: TypeAlias = NDArray[np.uint8]

_LETTERS: Final = "abcdefghABCDEFG0123456789"
_GRIDS: Final = ((2, 1), (1, 2), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3), (4, 3), (4, 2), (5, 4), (1, 3))
"""Columns and rows of contact sheets."""

_FEWEST_SLICES: Final = 14
"""Fewest slices of a volume that is also cut in the other two directions."""

_PAGE: Final = 200
"""Pixels, side of a drawn page."""


class OtherPictures:
    """Draws pictures that are not one axial chest slice, float32 (128, 128), 0 to 1.

    Args:
        slices: for contact sheets; the volumes of those with lesion masks are also cut in other directions.
        other: pictures that are not chest slices.
    """

    def __init__(self, slices: Sequence[CtSlice], other: Sequence[CtSlice], rng: np.random.Generator) -> None:
        self._rng = rng
        volumes: dict[tuple[str, str], list[Picture]] = defaultdict(list)
        for slice_ in slices:
            if slice_.kind == "lesions":
                volumes[slice_.source, slice_.group].append(cast(Picture, cv2.resize(slice_.grey, (192, 192))))
        self._volumes = [np.stack(cuts) for cuts in volumes.values() if len(cuts) >= _FEWEST_SLICES]
        self._slices = [slice_.grey for slice_ in slices]
        self._other = [picture.grey for picture in other]

    def draw_any(self) -> Grey:
        """Draw a picture that is not a slice, or a contact sheet."""
        return self.draw() if self._rng.random() < 0.6 else self.draw_contact_sheet()

    def draw(self) -> Grey:
        """Draw a picture that is not an axial chest slice."""
        drawn = self._rng.random()
        if drawn < 0.5 and self._other:
            picture = self._draw_part(self._other[int(self._rng.integers(len(self._other)))])
        elif drawn < 0.8 and self._volumes:
            picture = self._draw_other_direction()
        elif drawn < 0.9:
            picture = self._draw_noise()
        else:
            picture = self._draw_page()
        return _reduced(np.ascontiguousarray(picture[:, ::-1] if self._rng.random() < 0.5 else picture))

    def draw_contact_sheet(self) -> Grey:
        """Draw a grid of slices, at times many times the same one."""
        rng = self._rng
        columns, rows = _GRIDS[int(rng.integers(len(_GRIDS)))]
        width = 480 // columns
        height, gap = int(width * rng.uniform(0.65, 1)), int(rng.choice([0, 2, 4, 10]))
        paper = int(rng.choice([0, 255]))
        sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), paper, np.uint8)
        same = rng.random() < 0.3
        picture = self._choose_slice()
        for top in range(gap, rows * (height + gap), height + gap):
            for left in range(gap, columns * (width + gap), width + gap):
                if not same or rng.random() < 0.3:
                    picture = self._choose_slice()
                sheet[top : top + height, left : left + width] = self._panel(picture, width, height)
        return _reduced(sheet)

    def position(self) -> Mapping[str, Any]:
        """Return the generator's state, for a checkpoint."""
        return self._rng.bit_generator.state

    def seek(self, position: Mapping[str, Any]) -> None:
        """Continue from a generator's state."""
        self._rng.bit_generator.state = position

    def _choose_slice(self) -> Picture:
        return self._slices[int(self._rng.integers(len(self._slices)))]

    def _panel(self, picture: Picture, width: int, height: int) -> Picture:
        """Scale a slice to a panel of a contact sheet, at times with a letter in it."""
        panel = cast(Picture, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
        if self._rng.random() < 0.3:
            cv2.putText(panel, "ABCDEFGH"[int(self._rng.integers(8))], (4, 20), 0, 0.6, 255, 1)
        return panel

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

    def _draw_noise(self) -> Picture:
        cells = int(self._rng.integers(1, 40))
        interpolation = int(self._rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))
        noise = (self._rng.random((cells, cells)) * 255).astype(np.uint8)
        return cast(Picture, cv2.resize(noise, (160, 160), interpolation=interpolation))

    def _draw_page(self) -> Picture:
        """Draw text, ellipses and rectangles on a page."""
        rng = self._rng
        page = np.full((_PAGE, _PAGE), int(rng.choice([0, 255, int(rng.integers(256))])), np.uint8)
        for _ in range(int(rng.integers(0, 25))):
            at, end = rng.integers(0, _PAGE, 2).tolist(), rng.integers(5, _PAGE, 2).tolist()
            drawn, tint = rng.random(), int(rng.integers(256))
            if drawn < 0.6:
                text = "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=int(rng.integers(2, 16))))
                cv2.putText(page, text, at, int(rng.integers(0, 4)), float(rng.uniform(0.3, 1)), tint, 1, cv2.LINE_AA)
            elif drawn < 0.8:
                cv2.ellipse(page, at, (end[0] // 2, end[1] // 2), float(rng.uniform(0, 180)), 0, 360, tint, -1)
            else:
                cv2.rectangle(page, at, end, tint, int(rng.choice([1, -1])))
        return page


def _reduced(picture: Picture) -> Grey:
    return as_grey(cast(Picture, cv2.resize(picture, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)))
