"""Decodes an image file to one canonical grey slice.

Training uses the same code. The file formats of COVID-CT reveal its labels (every RGBA and every grey PNG is COVID), so
everything except the grey values is dropped here.
"""

import io
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from service.errors import ErrorCode, UnusableImageError, unsupported
from service.imaging.dicom.file import DAMAGED_HEADER, open_dicom
from service.imaging.failures import decoding
from service.imaging.orientation import upright
from service.imaging.other_formats import unread_jpeg, unsupported_format
from service.imaging.picture import check_kind, load, to_grey
from service.imaging.signatures import JPEG, is_dicom, is_picture, is_tiff
from service.imaging.tiff import deep_grey, full_page, is_usual, open_tiff, unread_page
from service.imaging.window import LUNG, Window

Slice: TypeAlias = NDArray[np.uint8]
"""One grey channel, shape (1, H, W), 0 is black and 255 is white."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Formats that Pillow may try, with its names; only DICOM is parsed in addition."""

_OF_STUDIES: Final = "A study (/predict/study, covid-ct study) may also be NIfTI or a zip. "

MIN_SIDE: Final = 16
"""Pixels; smaller images show no anatomy. The smallest image of COVID-CT is 115 x 61."""

MAX_PIXELS: Final = 4096 * 4096
"""Default maximum of width times height: eight times the side of a usual slice."""

MAX_FRAMES: Final = 1000
"""Maximum frames of a file of a study; a chest CT at half a millimetre has about 700 slices."""

_MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
"""Texts and colour profiles of a PNG, in place of Pillow's 1 MiB, which real files exceed."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits for decoding an image.

    Attributes:
        max_pixels: width times height of a frame, in pixels, known from the header before any pixel is decoded.
        max_frames: frames of a file of a study.
    """

    max_pixels: int = MAX_PIXELS
    max_frames: int = MAX_FRAMES


def decode(data: bytes, limits: DecodeLimits = DecodeLimits(), window: Window = LUNG) -> Slice:
    """Decode an image file to its canonical grey slice.

    Grey is ITU-R BT.601 luma (Pillow's `L`). Samples beyond 8 bits are scaled from their full range, transparent
    pixels become black (air in CT), the EXIF orientation is applied, palettes and CMYK go through RGB. The first full
    image of a phone's picture (MPO) or of a TIFF with thumbnails is used. DICOM goes through `window`, see
    `service.imaging.dicom`.

    Args:
        data: a whole file of one of `FORMATS`, or DICOM.
        limits: see `DecodeLimits`.
        window: Hounsfield units that are black and white, for DICOM.

    Returns:
        uint8 (1, H, W).

    Raises:
        UnsupportedImageError: the format of the bytes is not supported, whatever the file name says.
        UnusableImageError: empty, damaged, too many pixels, too small, several frames, without a defined grey value, or
            a DICOM file that is not a CT image.
    """
    if is_dicom(data):
        file = open_dicom(data)
        check_size(file.header.columns, file.header.rows, limits)
        if file.header.frames > 1:
            raise _several_frames(f"{file.header.frames} frames")
        with decoding(DAMAGED_HEADER):
            turn = upright(file.axes(0))
        return file.frame(0, turn, window)[np.newaxis]
    if not data:
        raise UnusableImageError("The file is empty: 0 bytes were received.", code=ErrorCode.EMPTY_FILE)
    if is_tiff(data):
        return _to_slice(_read_tiff(data, limits))
    return _to_slice(_read_picture(data, limits))


def to_input(ct_slice: Slice, size: int) -> Slice:
    """Resize a slice to the square input of the network, like torchvision's `Resize((size, size))`.

    Bilinear with antialiasing; the aspect ratio is not kept, as in the paper of the data set (arXiv 2003.13865).

    Args:
        ct_slice: uint8 (1, H, W).
        size: side of the result in pixels.

    Returns:
        uint8 (1, size, size).
    """
    resized = Image.fromarray(ct_slice[0]).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)[np.newaxis]  # a copy, so that torch can share its memory


def reduced(ct_slice: Slice, side: int | None) -> Slice:
    """Reduce a slice so that no side is longer than `side` pixels; None, and a smaller slice, change nothing.

    Args:
        ct_slice: uint8 (1, H, W).
        side: longest side of the result.

    Returns:
        uint8 (1, h, w), with the same aspect ratio.
    """
    if side is None or max(ct_slice.shape) <= side:
        return ct_slice
    image = Image.fromarray(ct_slice[0])
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _to_slice(image)


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Check the size of an image in pixels.

    Raises:
        UnusableImageError: too many pixels, or a side is too short.
    """
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width} x {height}, and the limit is {limits.max_pixels} in all")
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(
            f"The image has {width} x {height} pixels; each side must have at least {MIN_SIDE}.",
            code=ErrorCode.IMAGE_TOO_SMALL,
        )


def check_frames(frames: int, limits: DecodeLimits) -> None:
    """Check the number of frames of a file.

    Raises:
        UnusableImageError: too many.
    """
    if frames > limits.max_frames:
        raise UnusableImageError(
            f"The file holds {frames} frames, and the limit is {limits.max_frames}.", code=ErrorCode.TOO_MANY_FRAMES
        )


def _read_picture(data: bytes, limits: DecodeLimits) -> Image.Image:
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT_BYTES
    image = _open(data)
    if image is None:
        raise unread_jpeg(data)
    with image:
        check_size(*image.size, limits)
        _check_animation(image)
        check_kind(image, data)
        return to_grey(load(image))


def _read_tiff(data: bytes, limits: DecodeLimits) -> Image.Image:
    with open_tiff(data) as file:
        page, is_followed = full_page(file)
        check_size(max(page.imagewidth, page.tilewidth), max(page.imagelength, page.tilelength), limits)
        check_size(page.imagewidth, page.imagelength, limits)
        if is_followed:
            raise _several_frames("several pages")
        if not is_usual(page):
            return ImageOps.exif_transpose(deep_grey(page))
        image = _open(data)
        if image is None:
            raise unread_page(page)
    with image:
        with decoding("its pages can't be read"):
            image.seek(page.index)
        check_size(*image.size, limits)
        return to_grey(load(image))


def _open(data: bytes) -> Image.Image | None:
    """Read the header; return None for a JPEG or TIFF that Pillow does not support."""
    with decoding("its header can't be read"):
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            if data.startswith(JPEG) or is_tiff(data):
                return None
            if is_picture(data):
                raise
            raise unsupported_format(data, FORMATS, _OF_STUDIES) from None
        except Image.DecompressionBombError:
            raise _too_many_pixels("more than the decoder accepts") from None
        except Exception as error:
            if str(error).startswith("Unsupported BMP"):  # with kind and number
                raise unsupported(f"{error}.", "magick in.bmp out.png", ErrorCode.UNSUPPORTED_ENCODING) from None
            raise


def _several_frames(what: str) -> UnusableImageError:
    return UnusableImageError(
        f"The file holds {what}; send one slice a file, as a single-frame image.", code=ErrorCode.SEVERAL_FRAMES
    )


def _check_animation(image: Image.Image) -> None:
    """Refuse an animation; the second image of a phone's picture (MPO) is for depth, or smaller."""
    with decoding("its frames can't be counted"):
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise _several_frames("several frames")


def _to_slice(image: Image.Image) -> Slice:
    return np.asarray(image, dtype=np.uint8)[np.newaxis]


def _too_many_pixels(what: str) -> UnusableImageError:
    return UnusableImageError(
        f"The image has too many pixels: {what}. Send a smaller one.", code=ErrorCode.TOO_MANY_PIXELS
    )
