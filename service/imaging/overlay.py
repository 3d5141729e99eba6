"""Pictures of a heat map, over its slice or alone, on a fixed scale from 0 to 1 so that slices can be compared."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from service.imaging.decode import Slice, reduced

CONTOUR_VALUE: Final = 0.25
"""The contour encloses values from here on."""

_LUNG_VALUE: Final = 0.5

_COLOURS: Final = (
    (87, 16, 110),
    (137, 34, 106),
    (188, 55, 84),
    (227, 89, 51),
    (249, 142, 9),
    (249, 203, 53),
    (252, 255, 164),
)
"""Steps of matplotlib's `inferno` (CC0): its lightness rises evenly, also for the colour-blind. Without its blacks,
which would hide the slice."""

_CONTOUR: Final = (255, 255, 255)
_OUTLINE: Final = (0, 200, 255)

_MAX_OPACITY: Final = 0.6
"""The anatomy below the highest values must stay visible."""

_LINE_SIDE: Final = 512
"""Lines are one pixel wide up to this size of a picture, and wider in larger ones."""

_MARKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)

_COMPRESSION: Final = 3
"""Compression level of zlib; higher ones take far longer and save a few per cent."""

_QUALITY: Final = 90
"""Of a JPEG file: the lungs of a slice differ from the original by less than a grey level on average."""


def overlay(
    ct_slice: Slice, heatmap: NDArray[np.float32], max_side: int | None = None, lungs: NDArray[np.float32] | None = None
) -> Image.Image:
    """Draw the slice with the heat map in colour, its contour, and the outline of the lungs.

    The map is enlarged to the slice and drawn from clear (0) over purple and orange to yellow (1). Its
    opacity grows with the value, to 60 %. White lines enclose values of at least 0.25.

    Args:
        ct_slice: uint8 (1, H, W), in its original size.
        heatmap: float32 (h, w), 0 to 1; values below 0 are drawn as 0.
        max_side: longest side of the picture in pixels; None keeps the slice's own size.
        lungs: float32 (h, w), probability of lung; its outline at 0.5 is drawn in blue. None draws no outline.

    Returns:
        An RGB image with the aspect ratio of the slice.
    """
    grey = grey_image(ct_slice, max_side)
    level = Image.fromarray(np.rint(enlarged(heatmap, grey.size) * 255).astype(np.uint8))
    opacity = level.point([round(value * _MAX_OPACITY) for value in range(256)])
    level.putpalette(_palette())
    picture = Image.composite(level.convert("RGB"), grey.convert("RGB"), opacity)
    if lungs is not None:
        _draw_boundary(picture, lungs, _LUNG_VALUE, _OUTLINE)
    _draw_boundary(picture, heatmap, CONTOUR_VALUE, _CONTOUR)
    return picture


def with_colour_bar(picture: Image.Image) -> Image.Image:
    """Add the colour scale from 0 to 1 on the right of an overlay, with numbers and a line at the contour.

    A picture too small for the numbers gets a black margin at the bottom.
    """
    unit = max(10, min(picture.size) // 40)  # height of the numbers; not by the height alone: a tower gets no wider
    font = ImageFont.load_default(size=unit)
    height = max(picture.height, 7 * unit)
    framed = Image.new("RGB", (picture.width + 5 * unit, height))
    framed.paste(picture, (0, 0))
    left, top, bottom = picture.width + unit, unit, height - unit
    ramp = np.rint(np.linspace(255, 0, bottom - top)).astype(np.uint8)
    bar = Image.fromarray(np.repeat(ramp[:, np.newaxis], unit, axis=1))
    bar.putpalette(_palette())
    framed.paste(bar.convert("RGB"), (left, top))
    draw = ImageDraw.Draw(framed)
    for mark in _MARKS:
        y = bottom - round(mark * (bottom - top))
        draw.text((left + 1.5 * unit, y), f"{mark:g}", fill=_CONTOUR, font=font, anchor="lm")
        if mark == CONTOUR_VALUE:
            draw.line(((left, y), (left + 1.25 * unit, y)), fill=_CONTOUR, width=max(1, unit // 8))
    return framed


def map_image(values: NDArray[np.float32]) -> Image.Image:
    """Draw a map alone, one grey pixel for each position: 0 is black, 1 is white.

    Args:
        values: float32 (h, w).

    Returns:
        A grey image of (w, h) pixels.
    """
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def grey_image(ct_slice: Slice, max_side: int | None = None) -> Image.Image:
    """Draw the slice as a grey image, reduced if a side is longer than `max_side` pixels."""
    return Image.fromarray(reduced(ct_slice, max_side)[0])


def png(image: Image.Image) -> bytes:
    """Encode the image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """Encode a grey image as a JPEG file, in a third of the bytes of a PNG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _draw_boundary(
    picture: Image.Image, values: NDArray[np.float32], at_least: float, colour: tuple[int, int, int]
) -> None:
    """Draw a line around the places where the enlarged map is at least `at_least`."""
    scale = min(1.0, _LINE_SIDE / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    inside = Image.fromarray((enlarged(values, (width, height)) >= at_least).astype(np.uint8) * np.uint8(255))
    around = np.asarray(inside.filter(ImageFilter.MaxFilter(3))) - np.asarray(inside)
    line = Image.fromarray(around).resize(picture.size, Image.Resampling.BILINEAR)
    picture.paste(colour, (0, 0), line)


def enlarged(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge a map to (width, height) pixels: 0 to 1."""
    # bilinear: bicubic overshoots, and would draw contours where no value reaches them
    enlarged = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    return enlarged.clip(0, 1)


def _palette() -> list[int]:
    steps = np.asarray(_COLOURS, dtype=np.float32)
    at = np.linspace(0, len(steps) - 1, 256)
    channels = [np.interp(at, np.arange(len(steps)), steps[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(int).ravel().tolist()
