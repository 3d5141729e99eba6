import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import UnsupportedImageError, UnusableImageError
from service.imaging.decode import DecodeLimits, decode, to_input
from tests.support.files.lying_files import chunk, encoded, png_that_claims

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
SLICE = Image.fromarray(GREY)


def grey_as_palette(image: Image.Image) -> Image.Image:
    """The same picture by way of a palette that is not in the order of its greys."""
    palette = Image.frombytes("P", image.size, (255 - np.asarray(image)).tobytes())
    palette.putpalette([level for i in range(256) for level in (255 - i,) * 3])
    return palette


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(SLICE, "PNG"), id="png grey"),
        pytest.param(encoded(SLICE.convert("RGB"), "PNG"), id="png rgb"),
        pytest.param(encoded(SLICE.convert("RGBA"), "PNG"), id="png rgba"),
        pytest.param(encoded(SLICE.convert("LA"), "PNG"), id="png grey and alpha"),
        pytest.param(encoded(grey_as_palette(SLICE), "PNG"), id="png palette"),
        pytest.param(encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), id="png 16 bits"),
        pytest.param(encoded(SLICE, "BMP"), id="bmp"),
        pytest.param(encoded(SLICE, "TIFF"), id="tiff"),
        pytest.param(encoded(SLICE, "TIFF", compression="tiff_lzw"), id="tiff lzw"),
        pytest.param(encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), id="tiff 16 bits"),
        pytest.param(encoded(SLICE.convert("RGB"), "WEBP", lossless=True), id="webp"),
        pytest.param(encoded(SLICE, "GIF"), id="gif"),
    ],
)
def test_writing_the_same_slice_in_another_format_changes_nothing(data: bytes) -> None:
    """The trap of COVID-CT: its labels can be read off the file format, so nothing of the format may come through."""
    np.testing.assert_array_equal(decode(data), GREY[np.newaxis])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_colour_mode_gives_nearly_the_same_slice(mode: str) -> None:
    smooth = Image.fromarray(np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1)))
    decoded = decode(encoded(smooth.convert(mode), "JPEG", quality=95))
    assert decoded.shape == (1, 40, 60)
    assert np.abs(decoded[0].astype(int) - np.asarray(smooth)).max() <= 4


def test_colour_becomes_bt_601_luma() -> None:
    image = Image.new("RGB", (20, 20), (200, 100, 50))
    assert set(decode(encoded(image, "PNG")).flat) == {round((299 * 200 + 587 * 100 + 114 * 50) / 1000)}


def test_transparent_pixels_are_black_like_the_air_around_a_body() -> None:
    image = Image.new("LA", (20, 20), (200, 255))
    image.paste((200, 0), (0, 0, 10, 20))
    decoded = decode(encoded(image, "PNG"))
    assert set(decoded[0, :, :10].flat) == {0}
    assert set(decoded[0, :, 10:].flat) == {200}


def test_16_bits_are_scaled_from_their_full_range() -> None:
    samples = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(samples), "PNG"))[0], np.round(samples / 257).astype(np.uint8)
    )


def test_one_bit_is_black_and_white() -> None:
    board = np.indices((20, 20)).sum(0) % 2 == 1
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(board), "PNG"))[0], board * np.uint8(255))


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: shown after a quarter turn clockwise
    image = Image.fromarray(np.vstack([np.zeros((16, 48), np.uint8), np.full((16, 48), 255, np.uint8)]))
    decoded = decode(encoded(image, "PNG", exif=exif))
    assert decoded.shape == (1, 48, 32)
    assert decoded[0, :, :16].min() == 255
    assert decoded[0, :, 16:].max() == 0


@pytest.mark.parametrize("side", [7_000, 10_000, 20_000, 65_535])
def test_too_many_pixels_are_refused_by_the_header_alone(side: int) -> None:
    """Pillow's own check says nothing, warns, and raises at these sizes."""
    with pytest.raises(UnusableImageError) as caught:
        decode(png_that_claims(side, side))
    assert caught.value.code == "too_many_pixels"


def test_the_first_image_of_a_phones_picture_is_taken() -> None:
    data = encoded(SLICE, "MPO", save_all=True, append_images=[SLICE.resize((20, 20))], quality=95)
    assert decode(data).shape == (1, 40, 60)


LONG = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize("place", ["IDAT", "IEND"])
@pytest.mark.parametrize(
    "long",
    [
        pytest.param(chunk(b"zTXt", b"Comment\0\0" + LONG), id="zTXt"),
        pytest.param(chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG), id="iTXt"),
        pytest.param(chunk(b"iCCP", b"profile\0\0" + LONG), id="iCCP"),
    ],
)
def test_a_long_text_or_profile_of_a_png_does_not_count(long: bytes, place: str) -> None:
    data = encoded(SLICE, "PNG")
    at = data.index(place.encode()) - 4
    with_text = data[:at] + long + data[at:]
    np.testing.assert_array_equal(decode(with_text)[0], GREY)
    with pytest.raises(UnusableImageError) as caught:
        decode(with_text[:-900])
    assert caught.value.code == "damaged_image"


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]),
)
def test_no_bytes_raise_anything_but_the_two_refusals(data: bytes, head: bytes) -> None:
    with pytest.raises((UnsupportedImageError, UnusableImageError)):
        decode(head + data)


@settings(max_examples=200)
@given(flips=st.lists(st.integers(0, 10**6), min_size=1, max_size=6), which=st.integers(0, 4))
def test_a_damaged_file_is_decoded_or_refused(flips: list[int], which: int) -> None:
    data = bytearray(FILES[which])
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    try:
        decoded = decode(bytes(data), DecodeLimits(max_pixels=10_000))
    except (UnsupportedImageError, UnusableImageError):
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[0] == 1


FILES = [encoded(SLICE, "PNG"), *(encoded(SLICE, name) for name in ("JPEG", "TIFF", "BMP", "GIF"))]


@pytest.mark.parametrize("size", [32, 224])
def test_to_input_resizes_bilinearly_with_antialiasing(size: int) -> None:
    resized = to_input(GREY[np.newaxis], size)
    expected = Image.fromarray(GREY).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected)[np.newaxis])
    assert resized.flags.writeable
