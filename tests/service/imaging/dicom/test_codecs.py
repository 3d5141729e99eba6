"""Every compressed transfer syntax, from several encoders: same samples, no truncation missed."""

import io
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from service.errors import UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import decode
from service.imaging.dicom.frames import decode_frame, split_frames
from service.imaging.dicom.header import read_header
from service.imaging.dicom.reader import Reader
from tests.support.files.dicoms import JPEG_XL, STREAMS, ct, ct_dataset, encapsulated, lossless_jpeg, phantom, written

STORED = phantom()
GREY = (STORED >> 4).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
NOISE = np.random.default_rng(0).integers(0, 1 << 16, (33, 47), dtype=np.uint16)
LOSSLESS = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2K, JPEG_XL]


def samples(data: bytes) -> NDArray[Any]:
    """All bits of the samples of a file with one frame."""
    reader = Reader(data)
    header = read_header(reader.read(), reader.syntax)
    (frame,) = split_frames(reader, header)
    return decode_frame(frame, header)


def baseline(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", range(2, 17))
def test_lossless_jpeg_of_every_predictor_and_depth_gives_its_samples(predictor: int, bits: int) -> None:
    pixels = (NOISE >> (16 - bits)).astype(np.uint16 if bits > 8 else np.uint8)
    stream = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits)
    np.testing.assert_array_equal(samples(encapsulated(bytes(stream), JPEGLossless, pixels)), pixels)


@pytest.mark.parametrize("seed", range(12))
def test_lossless_jpeg_is_whole_whatever_number_of_bytes_it_has(seed: int) -> None:
    pixels = STORED[:20] + np.random.default_rng(seed).integers(0, 900, (20, 64), dtype=np.uint16)
    np.testing.assert_array_equal(samples(ct(pixels, JPEGLosslessSV1)), pixels)


def test_lossless_colour_gives_its_samples() -> None:
    np.testing.assert_array_equal(samples(ct(COLOUR, JPEGLosslessSV1)), COLOUR)


@pytest.mark.filterwarnings("ignore:The .0028,0004. 'Photometric:UserWarning")
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_colours_of_a_lossy_jpeg_are_rgb_whatever_the_header_says(photometric: str) -> None:
    stream = baseline(COLOUR, quality=100, subsampling=0)
    data = encapsulated(stream, JPEGBaseline8Bit, COLOUR, PhotometricInterpretation=photometric)
    assert np.abs(samples(data).astype(int) - COLOUR).max() <= 4


def test_a_12_bit_lossy_jpeg_is_near_its_samples() -> None:
    assert np.abs(samples(ct(STORED, JPEGExtended12Bit)).astype(int) - STORED).max() <= 4


@pytest.mark.parametrize("number", [201, 202, 203])
def test_high_throughput_jpeg_2000_gives_its_samples(number: int) -> None:
    data = encapsulated(STREAMS[HTJ2K](STORED), f"1.2.840.10008.1.2.4.{number}", STORED)
    np.testing.assert_array_equal(samples(data), STORED)


STREAM_FILES: dict[str, tuple[str, bytes, NDArray[Any]]] = {
    "baseline with restarts": (JPEGBaseline8Bit, baseline(GREY, quality=95, restart_marker_rows=1), GREY),
    "12 bits": (JPEGExtended12Bit, STREAMS[JPEGExtended12Bit](STORED), STORED),
    **{syntax: (syntax, STREAMS[syntax](STORED), STORED) for syntax in LOSSLESS},
}


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", b"\0\xff\xd9"], ids=["cut", "end marker", "padding"])
@pytest.mark.parametrize("name", STREAM_FILES)
def test_a_truncated_stream_is_refused_at_every_length(name: str, tail: bytes) -> None:
    syntax, stream, pixels = STREAM_FILES[name]
    for keep in range(len(stream) // 3, len(stream) - 8, 397):
        with pytest.raises(UnusableImageError) as caught:
            decode(encapsulated(stream[:keep] + tail, syntax, pixels))
        assert caught.value.code == "damaged_image"


def test_a_jpeg_ls_stream_that_just_stops_is_refused_quickly() -> None:
    _, stream, _ = STREAM_FILES[JPEGLSLossless]
    damaged = encapsulated(stream[: len(stream) // 2], JPEGLSLossless, STORED)
    started = time.process_time()
    with pytest.raises(UnusableImageError):
        decode(damaged)
    assert time.process_time() - started < 1.0, "the codec needs seconds where the end marker is missing"


def test_a_restart_interval_that_lacks_bytes_is_refused() -> None:
    syntax, stream, pixels = STREAM_FILES["baseline with restarts"]
    at = stream.index(b"\xff\xd2")
    with pytest.raises(UnusableImageError, match="truncated"):
        decode(encapsulated(stream[: at - 20] + stream[at:], syntax, pixels))


@pytest.mark.parametrize(
    ("syntax", "cut", "tail"),
    [
        pytest.param(JPEG2000Lossless, 0, b"\0", id="a byte after the codestream"),
        pytest.param(JPEG2000Lossless, 2, b"", id="no end of the codestream"),
        pytest.param(JPEGLSLossless, 2, b"\0\0\0\xff\xd9", id="zeros before the end of JPEG-LS"),
        pytest.param(JPEGLosslessSV1, 0, b"\0" * 9, id="zeros after JPEG"),
        pytest.param(JPEGLosslessSV1, 2, b"", id="no end of JPEG"),
    ],
)
def test_padding_around_the_end_marker_changes_nothing(syntax: str, cut: int, tail: bytes) -> None:
    stream = STREAMS[syntax](STORED)
    padded = encapsulated(stream[: len(stream) - cut] + tail, syntax, STORED)
    np.testing.assert_array_equal(decode(padded), decode(ct(STORED)))


@pytest.mark.parametrize(("rows", "code"), [(65535, "limit_exceeded"), (63, "damaged_image")])
def test_a_stream_of_another_size_than_its_header_says_is_refused(cage: BlockingCage, rows: int, code: str) -> None:
    stream = bytearray(STREAMS[JPEGLosslessSV1](STORED))
    at = stream.index(b"\xff\xc3") + 5
    stream[at : at + 4] = rows.to_bytes(2, "big") * 2
    with pytest.raises(UnusableImageError) as caught:
        cage.decode(encapsulated(bytes(stream), JPEGLosslessSV1, STORED))
    assert caught.value.code == code


@pytest.mark.parametrize("changes", [{}, {"BitsStored": 12, "HighBit": 11}, {"RescaleIntercept": 0}])
def test_gdcm_writes_lossless_jpeg_that_reads_like_the_native_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    pixels = (STORED.astype(int) - 1024).astype(np.int16) if "RescaleIntercept" in changes else STORED
    native = ct(pixels, **changes)
    np.testing.assert_array_equal(decode(lossless_jpeg(tmp_path, native)), decode(native))


DCMTK = [
    pytest.param("dcmcjpeg", ["+e1"], 0, id="lossless"),
    *(
        pytest.param("dcmcjpeg", ["+el", "+sv", str(predictor)], 0, id=f"lossless {predictor}")
        for predictor in range(1, 8)
    ),
    pytest.param("dcmcjpeg", ["+ee", "+bt", "+q", "100"], 1, id="12 bits"),
    pytest.param("dcmcjpls", [], 0, id="JPEG-LS"),
    pytest.param("dcmcrle", [], 0, id="RLE"),
]


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="dcmtk is not installed here")
@pytest.mark.parametrize(("tool", "options", "tolerance"), DCMTK)
def test_dcmtk_writes_pixels_that_read_like_the_native_file(
    tmp_path: Path, tool: str, options: list[str], tolerance: int
) -> None:
    native = ct(STORED, BitsStored=12, HighBit=11)
    (tmp_path / "native.dcm").write_bytes(native)
    subprocess.run([tool, *options, tmp_path / "native.dcm", tmp_path / "compressed.dcm"], check=True, timeout=60)
    grey = decode((tmp_path / "compressed.dcm").read_bytes())
    assert np.abs(grey.astype(int) - decode(native)).max() <= tolerance


def test_a_wrong_offset_table_of_a_single_frame_is_not_used() -> None:
    fragments = bytearray(encapsulate([STREAMS[JPEG2000Lossless](STORED)], has_bot=True))
    fragments[8:12] = (4000).to_bytes(4, "little")
    dataset = ct_dataset(STORED, JPEG2000Lossless, PixelData=bytes(fragments))
    dataset["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(decode(written(dataset)), decode(ct(STORED)))
