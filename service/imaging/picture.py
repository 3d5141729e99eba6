"""Pictures that Pillow has opened: their pixels, in grey."""

from typing import Final

import numpy as np
from PIL import Image, ImageOps

from service.errors import ErrorCode, UnusableImageError, unsupported
from service.imaging.failures import decoding

_MAX_PALETTE_BYTES: Final = 4 * 256

_STRIP_ROWS: Final = 256


def load(image: Image.Image) -> Image.Image:
    """Decode the pixels, upright."""
    with decoding("it is truncated or damaged; the pixels can't be decoded"):
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


def check_kind(image: Image.Image, data: bytes) -> None:
    """Refuse pictures that Pillow opens and then fails to read, or misreads."""
    if image.format == "PNG" and data[24] == 16 and "transparency" in image.info:  # compared with samples of 8 bits
        raise _unsupported_kind(
            "The PNG has samples of 16 bits and a transparent colour, which is not read.",
            "magick in.png -depth 8 out.png",
        )
    if image.palette and len(image.palette.palette) > _MAX_PALETTE_BYTES:
        raise _unsupported_kind("The BMP has a palette of more than 256 colours.", "magick in.bmp out.png")


def to_grey(image: Image.Image) -> Image.Image:
    """Reduce any mode that Pillow decodes to `L`."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode in ("La", "RGBa"):
        raise _unsupported_kind(
            "The file has colours that are multiplied by their transparency, which is not read.",
            "magick in.tif -alpha off out.png",
        )
    if image.mode.startswith("I;16"):
        samples = np.array(image, dtype=np.uint32)
        return Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8))
    try:
        if image.has_transparency_data:
            return _on_black(image)
        if image.mode not in ("1", "RGB"):
            image = image.convert("RGB")
        return image.convert("L")
    except ValueError as error:
        raise unsupported(
            f"The file's colour mode {image.mode} has no defined grey value; send a grey or RGB image.",
            "magick in -colorspace Gray out.png",
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        ) from error


def _on_black(image: Image.Image) -> Image.Image:
    """Show a transparent picture on black, in strips: as a whole it takes five times its memory."""
    grey = Image.new("L", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))).convert("RGBA")
        grey.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "black"), strip).convert("L"), (0, top))
    return grey


def _unsupported_kind(what: str, command: str) -> UnusableImageError:
    return unsupported(what, command, ErrorCode.UNSUPPORTED_ENCODING)
