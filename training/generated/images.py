"""Generated images that are clearly no slices, which a model should refuse."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.imaging.decode import Slice
from training.run.seeding import derive_seed

_GENERATED_EACH: Final = 50
_SIDE: Final = 256


def generated_images(seed: int) -> dict[str, list[Slice]]:
    """Generate images that are clearly not slices: noise, gradients, blank pages and pages of text."""
    generator = np.random.default_rng(derive_seed(seed, "gate"))
    makers = {"noise": _noise, "gradient": _gradient, "blank": _blank, "text": _text}
    return {
        kind: [make(generator, number)[np.newaxis] for number in range(_GENERATED_EACH)]
        for kind, make in makers.items()
    }


def _noise(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Draw noise, uniform or normal, with grains from 1 to 64 pixels."""
    side = _SIDE >> number % 7
    grain = generator.random((side, side)) if number % 2 else generator.normal(0.5, 0.2, (side, side)).clip(0, 1)
    coarse = Image.fromarray((grain * 255).astype(np.uint8))
    return np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.NEAREST))


def _gradient(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Draw a gradient, linear in some direction or radial from some point."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    angle, (row, column) = generator.uniform(0, 2 * np.pi), generator.uniform(-1, 1, 2)
    ramp = np.hypot(x - column, y - row) if number % 5 == 0 else x * np.cos(angle) + y * np.sin(angle)
    grey: NDArray[np.uint8] = (255 * (ramp - ramp.min()) / (ramp.max() - ramp.min())).astype(np.uint8)
    return grey


def _blank(_: np.random.Generator, number: int) -> NDArray[np.uint8]:
    return np.full((_SIDE, _SIDE), number * 255 // (_GENERATED_EACH - 1), dtype=np.uint8)


def _text(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Draw lines of letters, dark on light or light on dark."""
    paper, ink = (255, 0) if number % 2 else (0, 255)
    page = Image.new("L", (_SIDE, _SIDE), paper)
    font = ImageFont.load_default(size=int(generator.integers(10, 28)))
    letters = generator.choice(list("abcdefghijklmnopqrstuvwxyz    "), (24, 40))
    ImageDraw.Draw(page).multiline_text((8, 8), "\n".join("".join(line) for line in letters), fill=ink, font=font)
    return np.asarray(page)
