"""TIFFs beyond 8 bits, pages, kinds of JPEG, PNG and BMP: the right grey, or the kind by name."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.errors import UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import decode
from tests.support.files.lying_files import chunk

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples: bytes, bits: int, photometric: int, *, per_pixel: int = 1, planar: int = 1, kind: int = 1) -> bytes:
    """An uncompressed TIFF of the size of `GREY`, little endian."""
    height, width = GREY.shape
    planes = per_pixel if planar == 2 else 1
    entries = 11
    at = 8 + 2 + 12 * entries + 4
    bits_at, offsets_at = at, at + 2 * per_pixel
    counts_at = offsets_at + 4 * planes
    data_at = counts_at + 4 * planes
    size = len(samples) // planes
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, per_pixel, bits if per_pixel == 1 else bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, planes, data_at if planes == 1 else offsets_at),
        (277, 3, 1, per_pixel),
        (278, 4, 1, height),
        (279, 4, planes, size if planes == 1 else counts_at),
        (284, 3, 1, planar),
        (339, 3, 1, kind),
    ]
    return b"".join(
        (
            b"II*\0" + struct.pack("<IH", 8, entries),
            *(struct.pack("<HHII", *tag) for tag in tags),
            struct.pack("<I", 0),
            struct.pack(f"<{per_pixel}H", *[bits] * per_pixel),
            struct.pack(f"<{planes}I", *[data_at + size * plane for plane in range(planes)]),
            struct.pack(f"<{planes}I", *[size] * planes),
            samples,
        )
    )


def twelve_bits(values: NDArray[np.uint16]) -> bytes:
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff(DEEP.tobytes(), 16, 1), id="16 bits"),
        pytest.param(tiff((65535 - DEEP).tobytes(), 16, 0), id="16 bits, white is zero"),
        pytest.param(tiff(np.stack([DEEP] * 3, axis=-1).tobytes(), 16, 2, per_pixel=3), id="16-bit RGB"),
        pytest.param(tiff(twelve_bits((GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)), 12, 1), id="12 bits"),
        pytest.param(tiff((255 - GREY).tobytes(), 8, 0), id="8 bits, white is zero"),
    ],
)
def test_a_tiff_has_its_right_grey(data: bytes) -> None:
    assert np.abs(decode(data)[0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "lzma", "zstd"])
def test_a_deep_tiff_of_every_compression_is_read_and_a_cut_one_is_damaged(
    cage: BlockingCage, compression: str | None
) -> None:
    """In the cage, because its workers can't import a codec."""
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP, compression=compression, predictor=compression == "zlib")
    np.testing.assert_array_equal(cage.decode(file.getvalue()).slice_[0], GREY)
    with pytest.raises(UnusableImageError) as caught:
        cage.decode(file.getvalue()[:-200])
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize(
    ("data", "telling"),
    [
        pytest.param(tiff(DEEP.tobytes(), 16, 1, kind=2), "signed samples of 16 bits", id="signed 16"),
        pytest.param(tiff(GREY.tobytes(), 8, 1, kind=2), "signed samples of 8 bits", id="signed 8"),
        pytest.param(
            tiff(GREY.astype(np.float32).tobytes(), 32, 1, kind=3), "floating-point samples of 32", id="float"
        ),
        pytest.param(tiff(GREY.astype(np.uint32).tobytes(), 32, 1), "unsigned samples of 32 bits", id="32 bits"),
    ],
)
def test_samples_without_a_grey_value_are_named_with_true_numbers(data: bytes, telling: str) -> None:
    with pytest.raises(UnusableImageError, match=telling) as caught:
        decode(data)
    assert caught.value.code == "unsupported_sample_depth"
    assert "Convert it with" in caught.value.detail


def test_the_first_full_page_of_a_tiff_is_the_picture() -> None:
    full, small = Image.fromarray(GREY), Image.fromarray(GREY[::2, ::2])
    for pages in ((full, small), (small, full)):
        data = bytearray(saved(pages[0], "TIFF", save_all=True, append_images=[pages[1]], tiffinfo={254: 0}))
        at = int.from_bytes(data[4:8], "little")
        while at:  # mark the small page
            (count,) = struct.unpack_from("<H", data, at)
            tags = {struct.unpack_from("<H", data, at + 2 + 12 * n)[0]: at + 2 + 12 * n for n in range(count)}
            if int.from_bytes(data[tags[256] + 8 : tags[256] + 10], "little") < 60:
                data[tags[254] + 8 : tags[254] + 12] = struct.pack("<I", 1)
            (at,) = struct.unpack_from("<I", data, at + 2 + 12 * count)
        np.testing.assert_array_equal(decode(bytes(data))[0], GREY)


def test_the_first_image_of_a_phones_picture_is_taken() -> None:
    picture = Image.fromarray(GREY)
    data = saved(picture, "MPO", save_all=True, append_images=[picture.resize((20, 20))], quality=95)
    assert decode(data).shape == (1, 40, 60)


def premultiplied() -> bytes:
    layers = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (60, 40), 128)))
    data = bytearray(saved(layers, "TIFF"))
    at = int.from_bytes(data[4:8], "little")
    while struct.unpack_from("<H", data, at + 2)[0] != 338:  # ExtraSamples: 2 is straight, 1 premultiplied
        at += 12
    assert struct.unpack_from("<H", data, at + 10)[0] == 2
    struct.pack_into("<H", data, at + 10, 1)
    return bytes(data)


def deep_png_with_transparent_grey() -> bytes:
    data = saved(Image.fromarray(DEEP), "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk(b"tRNS", struct.pack(">H", 257)) + data[at:]


@pytest.mark.parametrize(
    ("data", "telling"),
    [
        pytest.param(
            bytes(imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=16)), "lossless", id="lossless JPEG"
        ),
        pytest.param(bytes(imagecodecs.jpegls_encode(GREY)), "JPEG-LS", id="JPEG-LS"),
        pytest.param(bytes(imagecodecs.jpeg8_encode(DEEP >> 4, bitspersample=12)), "not of 8 bits", id="12-bit JPEG"),
        pytest.param(deep_png_with_transparent_grey(), "transparent colour", id="16-bit PNG with a transparent colour"),
        pytest.param(premultiplied(), "multiplied by their transparency", id="premultiplied TIFF"),
    ],
)
def test_a_kind_that_hardly_exists_is_refused_by_name_with_a_command(data: bytes, telling: str) -> None:
    with pytest.raises(UnusableImageError, match=telling) as caught:
        decode(data)
    assert caught.value.code == "unsupported_encoding"
    assert "Convert it with: " in caught.value.detail


def test_a_16_bit_tiff_in_planes_is_refused() -> None:
    with pytest.raises(UnusableImageError, match="send grey or RGB") as caught:
        decode(tiff(DEEP.tobytes() * 3, 16, 2, per_pixel=3, planar=2))
    assert caught.value.code == "unsupported_colour_mode"


def test_a_bmp_of_an_unread_kind_is_named() -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 64, 0, 0, 0, 0, 0, 0)
    with pytest.raises(UnusableImageError, match="64 bits a pixel") as caught:
        decode(b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + head + bytes(9000))
    assert caught.value.code == "unsupported_encoding"


def test_a_bmp_whose_palette_is_too_large_is_named() -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 8, 0, 0, 0, 0, 300, 0)
    with pytest.raises(UnusableImageError, match="a palette of 300 colours") as caught:
        decode(b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1200) + head + bytes(1200 + 1024))
    assert caught.value.code == "unsupported_encoding"


LONG = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "long",
    [
        pytest.param(chunk(b"zTXt", b"Comment\0\0" + LONG), id="zTXt"),
        pytest.param(chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG), id="iTXt"),
        pytest.param(chunk(b"iCCP", b"profile\0\0" + LONG), id="iCCP"),
    ],
)
def test_a_long_text_or_profile_of_a_png_does_not_count(long: bytes, place: str) -> None:
    """Valid files that Pillow does not open: it limits what a text may inflate to."""
    data = saved(Image.fromarray(GREY), "PNG")
    at = data.index(b"IDAT" if place == "before" else b"IEND") - 4
    with_text = data[:at] + long + data[at:]
    np.testing.assert_array_equal(decode(with_text)[0], GREY)
    with pytest.raises(UnusableImageError) as caught:
        decode(with_text[:-900])
    assert caught.value.code == "damaged_image"


def test_a_plain_tiff_that_does_not_open_is_damaged() -> None:
    """Its kind is read, so it is not called unsupported."""
    fill_order = struct.pack("<HHII", 266, 3, 1, 3)  # 1 or 2 are valid
    data = tiff(GREY.tobytes(), 8, 1).replace(struct.pack("<HHII", 284, 3, 1, 1), fill_order)
    with pytest.raises(UnusableImageError, match="tags are invalid") as caught:
        decode(data)
    assert caught.value.code == "damaged_image"


def test_a_strange_tag_of_a_valid_tiff_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Pillow warns, for example of a tag with more values than it expects; the file can be read."""
    data = tiff(GREY.tobytes(), 8, 1).replace(
        struct.pack("<HHII", 278, 3 + 1, 1, 40), struct.pack("<HHII", 278, 3, 2, 40)
    )
    np.testing.assert_array_equal(decode(data)[0], GREY)
    assert not recwarn.list
