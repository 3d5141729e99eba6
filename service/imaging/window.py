"""Windows: mapping of Hounsfield units to grey."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Linear window of Hounsfield units: black at `centre` - `width` / 2, white at `centre` + `width` / 2.

    As in DICOM PS3.3 C.11.2.1.3.2 (LINEAR_EXACT).

    Raises:
        ValueError: a value is not finite, or the width is not above 0.
    """

    centre: float = -600.0
    width: float = 1500.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"a window needs a finite centre and a width above 0, not {self.centre}, {self.width}")

    def grey(self, hounsfield: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Map Hounsfield units of any shape to 0 (black) to 255 (white), rounded."""
        scaled = (hounsfield - self.centre) / self.width + 0.5
        return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


LUNG: Final = Window()
"""The usual lung window."""
