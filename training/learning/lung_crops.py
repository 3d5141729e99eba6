"""Pictures of the lung box, as the network sees it, with their masks; random ones for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.data.windows import Grey, as_grey
from training.learning.augmentation import change_window
from training.network.lung_box import find_box, set_tone
from training.network.lung_finder import LungFinder, shrink
from training.run.progress import progress

FEWEST_LUNG: Final = 0.012
"""Share of the slice that lungs must take for a slice to be trained on."""


@dataclass(frozen=True, slots=True)
class FoundLungs:
    """Lungs in N slices by the lung finder.

    Attributes:
        lung: float16 (N, 64, 64), probability of lung.
        box: float32 (N, 4), x0, x1, y0, y1 in shares of the slice.
    """

    lung: NDArray[np.float16]
    box: NDArray[np.float32]

    def has_lungs(self, index: int) -> bool:
        """Whether a slice shows enough lung to be trained on."""
        return bool((self.lung[index] > 0.5).mean() > FEWEST_LUNG)


@dataclass(frozen=True, slots=True)
class LungCrop:
    """The picture inside the box, with its masks; all of the box's size, float32.

    Attributes:
        grey: 0 to 1, tone set.
        found_lung: probability of lung by the finder.
        lesion, lung: drawn masks, None where there are none.
    """

    grey: Grey
    found_lung: Grey
    lesion: Grey | None
    lung: Grey | None


def find_lungs(finder: LungFinder, slices: Sequence[CtSlice]) -> FoundLungs:
    """Run the finder on every slice and its mirror image, and average both."""
    lungs, boxes = [], []
    with torch.inference_mode():
        for start in progress(range(0, len(slices), 64), "finding lungs", "batch"):
            greys = np.stack([slice_.grey for slice_ in slices[start : start + 64]])
            picture = shrink(torch.from_numpy(greys)[:, None].float() / 255)
            straight, mirrored = finder(picture)[0].sigmoid(), finder(picture.flip(3))[0].sigmoid().flip(3)
            lung = ((straight + mirrored) / 2)[:, 0]
            lungs.append(lung.half().numpy())
            boxes.append(find_box(lung).numpy())
    return FoundLungs(np.concatenate(lungs), np.concatenate(boxes))


def crop_lungs(
    slice_: CtSlice,
    lung: NDArray[np.float16],
    box: NDArray[np.float32],
    size: tuple[int, int],
    rng: np.random.Generator | None,
) -> LungCrop:
    """Crop the lung box and set its tone; with a generator, also move, turn, mirror and change the window.

    Args:
        slice_, lung, box: a slice, its lungs and its box.
        size: height and width of the picture.
        rng: draws the changes; None changes nothing.
    """
    height, width = size
    matrix = _matrix(box, height, width, rng)
    border = 0.0
    grey = as_grey(slice_.grey)
    if rng is not None:
        border = float(rng.choice([0, 0, 0.5, 1]))
        if rng.random() < 0.5:
            grey = change_window(grey, rng, strong=rng.random() < 0.6)

    def warp(picture: NDArray[np.float32], outside: float = 0.0) -> Grey:
        return cast(
            Grey,
            cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(outside,)),
        )

    whole = cast(Grey, cv2.resize(lung.astype(np.float32), (SLICE_SIZE, SLICE_SIZE), interpolation=cv2.INTER_LINEAR))
    found_lung = warp(whole)
    inside = warp(grey, border)
    toned = set_tone(torch.from_numpy(inside)[None, None], torch.from_numpy(found_lung)[None, None])[0, 0].numpy()
    return LungCrop(
        grey=toned,
        found_lung=found_lung,
        lesion=None if slice_.lesion is None else warp(slice_.lesion.astype(np.float32)),
        lung=None if slice_.lung is None else warp(slice_.lung.astype(np.float32)),
    )


def _matrix(box: NDArray[np.float32], height: int, width: int, rng: np.random.Generator | None) -> NDArray[np.float64]:
    """Affine matrix from the slice's pixels to the picture's: (2, 3)."""
    x0, x1, y0, y1 = (float(side) * SLICE_SIZE for side in box)
    mirror, angle = 1.0, 0.0
    if rng is not None:
        across, down = x1 - x0, y1 - y0
        moves = rng.normal(0, 0.05, 4)
        x0, x1 = x0 + moves[0] * across, x1 + moves[1] * across
        y0, y1 = y0 + moves[2] * down, y1 + moves[3] * down
        angle = np.deg2rad(rng.normal(0, 6))
        mirror = -1.0 if rng.random() < 0.5 else 1.0
    enlarged_x, enlarged_y = width / max(8.0, x1 - x0), height / max(8.0, y1 - y0)
    turn = np.array(
        [
            [enlarged_x * np.cos(angle) * mirror, -enlarged_x * np.sin(angle) * mirror],
            [enlarged_y * np.sin(angle), enlarged_y * np.cos(angle)],
        ]
    )
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return np.column_stack([turn, np.array([width / 2, height / 2]) - turn @ middle])
