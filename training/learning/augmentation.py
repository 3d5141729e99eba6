"""Random changes of a picture without relation to disease: window, blur, noise, JPEG, letters, arrows, frames.

Each is applied to both classes in the same way, so that none reveals a class.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.windows import Grey, as_grey

Picture: TypeAlias = NDArray[np.uint8]

_LETTERS: Final = "ABCDEFGHabcdefLR0123456789"


def change_window(grey: Grey, rng: np.random.Generator, strong: bool = True) -> Grey:
    """Show the slice in another window: other black and white points, gamma, and contrast."""
    reach = 1.0 if strong else 0.4
    if rng.random() < 0.85:
        low = rng.uniform(-0.25, 0.25) * reach
        high = rng.uniform(1 - 0.3 * reach, 1 + 0.35 * reach)
        grey = _clipped((grey - low) / (high - low))
    if rng.random() < 0.5:
        grey = _clipped(grey ** np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.3:
        low, high = rng.uniform(0, 0.3), rng.uniform(0.6, 1)
        grey = _clipped(low + (high - low) * grey)
    return grey


def degrade(grey: Grey, rng: np.random.Generator) -> Grey:
    """Reduce, blur, sharpen, add noise and compress, each with some probability."""
    height, width = grey.shape
    if rng.random() < 0.3:
        scale = rng.uniform(0.35, 1)
        small = cv2.resize(
            grey, (max(8, int(width * scale)), max(8, int(height * scale))), interpolation=cv2.INTER_AREA
        )
        grey = cast(Grey, cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    if rng.random() < 0.25:
        grey = _blurred(grey, rng.uniform(0.3, 1.2))
    if rng.random() < 0.15:
        grey = _clipped(grey + rng.uniform(0.3, 1.2) * (grey - _blurred(grey, 1.5)))
    if rng.random() < 0.4:
        noise = rng.standard_normal(grey.shape).astype(np.float32)
        if rng.random() < 0.5:
            noise = 1.8 * _blurred(noise, rng.uniform(0.5, 1.2))
        grey = _clipped(grey + rng.uniform(0.005, 0.06) * noise)
    if rng.random() < 0.4:
        grey = _compressed(grey, int(rng.integers(30, 95)))
    return grey


def draw_marks(grey: Grey, rng: np.random.Generator, probability: float) -> Grey:
    """Draw one to three letters, arrows, frames, outlines or scales, like in figures of papers."""
    if rng.random() > probability:
        return grey
    picture = np.ascontiguousarray((np.clip(grey, 0, 1) * 255).astype(np.uint8))
    for _ in range(int(rng.integers(1, 4))):
        _MARKS[int(rng.integers(len(_MARKS)))](picture, rng)
    return as_grey(picture)


def jitter_tone(grey: Grey, rng: np.random.Generator) -> Grey:
    """Change brightness, contrast and gamma a little, like an imperfect tone."""
    grey = _clipped(grey * rng.normal(1, 0.07) + rng.normal(0, 0.035))
    if rng.random() < 0.4:
        grey = _clipped(grey ** np.exp(rng.normal(0, 0.2)))
    return grey


def _clipped(grey: NDArray[np.floating]) -> Grey:
    return np.asarray(np.clip(grey, 0, 1), np.float32)


def _blurred(grey: Grey, sigma: float) -> Grey:
    return cast(Grey, cv2.GaussianBlur(grey, (0, 0), sigma))


def _compressed(grey: Grey, quality: int) -> Grey:
    _, data = cv2.imencode(".jpg", (grey * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return as_grey(cast(Picture, cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)))


def _tint(rng: np.random.Generator) -> int:
    return int(255 * rng.choice([0, 1, 1, rng.random()]))


def _place(picture: Picture, rng: np.random.Generator) -> tuple[int, int]:
    height, width = picture.shape
    return int(rng.integers(0, width)), int(rng.integers(0, height))


def _draw_text(picture: Picture, rng: np.random.Generator) -> None:
    height, width = picture.shape
    text = "".join(
        _LETTERS[i] for i in rng.integers(len(_LETTERS), size=int(rng.integers(1, 9)) if rng.random() < 0.5 else 1)
    )
    at = _place(picture, rng)
    if rng.random() < 0.6:  # a corner, where figures have their letters
        at = int(rng.choice([2, width - int(width * 0.25)])), int(rng.choice([int(height * 0.1) + 2, height - 4]))
    scale = float(rng.uniform(0.25, 1.1)) * height / 200
    cv2.putText(picture, text, at, int(rng.integers(0, 4)), scale, _tint(rng), int(rng.integers(1, 3)), cv2.LINE_AA)


def _draw_arrow(picture: Picture, rng: np.random.Generator) -> None:
    x, y = _place(picture, rng)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.18) * picture.shape[1]
    end = int(x + length * np.cos(angle)), int(y + length * np.sin(angle))
    cv2.arrowedLine(picture, (x, y), end, _tint(rng), int(rng.integers(1, 3)), cv2.LINE_AA, 0, 0.4)


def _draw_border(picture: Picture, rng: np.random.Generator) -> None:
    thickness = int(rng.integers(1, max(2, picture.shape[0] // 20)))
    side = (slice(thickness), slice(-thickness, None))[int(rng.integers(2))]
    if rng.random() < 0.5:
        picture[side] = _tint(rng)
    else:
        picture[:, side] = _tint(rng)


def _draw_outline(picture: Picture, rng: np.random.Generator) -> None:
    x, y = _place(picture, rng)
    width = picture.shape[1]
    if rng.random() < 0.5:
        cv2.circle(picture, (x, y), int(rng.uniform(0.03, 0.12) * width), _tint(rng), 1, cv2.LINE_AA)
    else:
        corner = x + int(rng.uniform(0.05, 0.25) * width), y + int(rng.uniform(0.05, 0.25) * width)
        cv2.rectangle(picture, (x, y), corner, _tint(rng), 1)


def _draw_scale(picture: Picture, rng: np.random.Generator) -> None:
    picture[:: max(4, picture.shape[0] // 20), -4:-1] = _tint(rng)


_MARKS: Final[tuple[Callable[[Picture, np.random.Generator], None], ...]] = (
    _draw_text,
    _draw_text,
    _draw_arrow,
    _draw_border,
    _draw_outline,
    _draw_scale,
)
