import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import UnsupportedImageError, UnusableImageError
from service.imaging.decode import DecodeLimits, decode, to_input
from tests.support.sources.covid_ct import png

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
SLICE = Image.fromarray(GREY)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def grey_as_palette(image: Image.Image) -> Image.Image:
    """The same picture by way of a palette that is not in the order of its greys."""
    palette = Image.frombytes("P", image.size, (255 - np.asarray(image)).tobytes())
    palette.putpalette([level for i in range(256) for level in (255 - i,) * 3])
    return palette


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(SLICE), id="png grey"),
        pytest.param(png(SLICE.convert("RGB")), id="png rgb"),
        pytest.param(png(SLICE.convert("RGBA")), id="png rgba"),
        pytest.param(png(SLICE.convert("LA")), id="png grey and alpha"),
        pytest.param(png(grey_as_palette(SLICE)), id="png palette"),
        pytest.param(png(Image.fromarray(GREY.astype(np.uint16) * 257)), id="png 16 bits"),
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
    assert set(decode(png(image)).flat) == {round((299 * 200 + 587 * 100 + 114 * 50) / 1000)}


def test_transparent_pixels_are_black_like_the_air_around_a_body() -> None:
    image = Image.new("LA", (20, 20), (200, 255))
    image.paste((200, 0), (0, 0, 10, 20))
    decoded = decode(png(image))
    assert set(decoded[0, :, :10].flat) == {0}
    assert set(decoded[0, :, 10:].flat) == {200}


def test_16_bits_are_scaled_from_their_full_range() -> None:
    samples = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    np.testing.assert_array_equal(decode(png(Image.fromarray(samples)))[0], np.round(samples / 257).astype(np.uint8))


def test_one_bit_is_black_and_white() -> None:
    checks = np.indices((20, 20)).sum(0) % 2 == 1
    np.testing.assert_array_equal(decode(png(Image.fromarray(checks)))[0], checks * np.uint8(255))


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: shown after a quarter turn clockwise
    image = Image.fromarray(np.vstack([np.zeros((16, 48), np.uint8), np.full((16, 48), 255, np.uint8)]))
    decoded = decode(encoded(image, "PNG", exif=exif))
    assert decoded.shape == (1, 48, 32)
    assert decoded[0, :, :16].min() == 255
    assert decoded[0, :, 16:].max() == 0


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def announcing(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels; decoding them would find it truncated."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + png(Image.new("L", (16, 16)))[33:]


FRAMES = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "empty_file", id="empty"),
        pytest.param(truncated(png(SLICE)), "damaged_image", id="half a png"),
        pytest.param(truncated(encoded(SLICE, "JPEG")), "damaged_image", id="half a jpeg"),
        pytest.param(png(SLICE)[:12], "damaged_image", id="a png's signature alone"),
        pytest.param(b"\xff\xd8\xff\xe0 not much of a jpeg", "damaged_image", id="a jpeg's first bytes"),
        pytest.param(png(Image.new("L", (2000, 2001))), "too_many_pixels", id="more pixels than the limit"),
        pytest.param(png(Image.new("L", (15, 400))), "image_too_small", id="a sliver"),
        pytest.param(
            encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "several_frames", id="animated gif"
        ),
        pytest.param(
            encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "several_frames", id="animated png"
        ),
        pytest.param(
            encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "several_frames", id="two-page tiff"
        ),
        pytest.param(
            encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "unsupported_sample_depth", id="32-bit tiff"
        ),
    ],
)
def test_an_image_that_gives_no_slice_is_refused_with_the_reason(data: bytes, code: str) -> None:
    with pytest.raises(UnusableImageError) as caught:
        decode(data, DecodeLimits(max_pixels=4_000_000))
    assert caught.value.code == code
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "data",
    [b"hello, I am text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"\0"],
)
def test_what_is_no_supported_image_is_told_by_its_bytes(data: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match="PNG, JPEG"):
        decode(data)


@pytest.mark.parametrize("side", [7_000, 10_000, 20_000, 65_535])
def test_too_many_pixels_are_refused_by_the_header_alone(side: int) -> None:
    """Pillow's own check says nothing, warns, and raises at these sizes."""
    with pytest.raises(UnusableImageError) as caught:
        decode(announcing(side, side))
    assert caught.value.code == "too_many_pixels"


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


FILES = [png(SLICE), *(encoded(SLICE, name) for name in ("JPEG", "TIFF", "BMP", "GIF"))]


@pytest.mark.parametrize("size", [32, 224])
def test_to_input_resizes_bilinearly_with_antialiasing(size: int) -> None:
    resized = to_input(GREY[np.newaxis], size)
    expected = Image.fromarray(GREY).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected)[np.newaxis])
    assert resized.flags.writeable


def test_to_input_is_torchvisions_resize() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    resize: Callable[[Image.Image], Image.Image] = v2.Resize((224, 224))
    np.testing.assert_array_equal(to_input(GREY[np.newaxis], 224)[0], np.asarray(resize(SLICE)))
