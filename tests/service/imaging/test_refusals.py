"""The words of refusals: damaged is said of damaged files only, and an unsupported kind has a command."""

import gzip
import io
import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGExtended12Bit

from service.errors import ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits, decode
from service.imaging.series.files import ReadOptions, study_slices
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES
from tests.support.files.dicoms import compressed_dataset, ct, ct_dataset, phantom, written

STORED = phantom()
GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
PICTURE = Image.fromarray(GREY)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_tiff(**tags: Any) -> bytes:
    """A TIFF of 16 bits whose tags are changed afterwards."""
    data = bytearray(saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", tiffinfo={339: 1}))
    at = int.from_bytes(data[4:8], "little")
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag = str(struct.unpack_from("<H", data, entry)[0])
        if f"t{tag}" in tags:
            struct.pack_into("<H", data, entry + 8, tags[f"t{tag}"])
    return bytes(data)


def bmp(depth: int, compression: int, masks: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, depth, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(masks)) + head + masks + bytes(9000)


def jpeg(frame: int, precision: int, components: int = 1) -> bytes:
    """The head of a JPEG stream of a process."""
    parts = b"".join(bytes((number + 1, 0x11, 0)) for number in range(components))
    size = struct.pack(">HBHHB", 8 + len(parts), precision, 64, 64, components)
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    return b"\xff\xd8\xff" + bytes((frame,)) + size + parts + scan + bytes(64) + b"\xff\xd9"


def coloured_palette() -> bytes:
    ramps = {f"{name}PaletteColorLookupTableData": np.arange(256, dtype=np.uint16) for name in ("Red", "Green")}
    ramps["BluePaletteColorLookupTableData"] = np.zeros(256, np.uint16)
    changes: dict[str, Any] = {name: values.tobytes() for name, values in ramps.items()}
    changes |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    return ct((STORED // 8).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR", **changes)


def compressed(stream: bytes) -> bytes:
    dataset = ct_dataset(STORED, JPEGExtended12Bit, PixelData=encapsulate([stream]))
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def enhanced_localizer() -> bytes:
    kind, group = Dataset(), Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    group.CTImageFrameTypeSequence = Sequence([kind])
    return ct(STORED, PerFrameFunctionalGroupsSequence=Sequence([group]))


def deep_jpeg_2000() -> bytes:
    """A stream whose header is changed to 20 bits a sample."""
    data = written(compressed_dataset(STORED, "1.2.840.10008.1.2.4.90"))
    at = data.index(b"\xff\x4f\xff\x51")
    return data[: at + 42] + bytes((19,)) + data[at + 43 :]


VOLUME = b"\0" * 344 + b"n+1\0" + bytes(100)

DAMAGED: dict[str, bytes] = {
    "a cut PNG": saved(PICTURE, "PNG")[:-600],
    "a cut JPEG": saved(PICTURE, "JPEG")[:600],
    "a cut TIFF": saved(PICTURE, "TIFF", compression="tiff_lzw")[:600],
    "a cut GIF": saved(PICTURE, "GIF")[:600],
    "a cut WebP": saved(PICTURE, "WEBP", lossless=True)[:600],
    "a cut BMP": saved(PICTURE, "BMP")[:1200],
    "a cut DICOM file": ct(STORED)[:-100],
    "a malformed element": ct(STORED, RescaleSlope=0),
}

UNSUPPORTED: dict[str, tuple[ErrorCode, bytes, str, str]] = {
    # name: code, file, what names the kind, command
    "HEIC": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"\0\0\0\x18ftypheic" + bytes(99), "HEIC", "magick"),
    "JPEG 2000": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, saved(PICTURE, "JPEG2000"), "JPEG 2000", "magick"),
    "a J2K stream": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, saved(PICTURE, "JPEG2000", no_jp2=True), "JPEG 2000", "magick"),
    "a PDF": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"%PDF-1.7", "a PDF document", "pdftoppm"),
    "SVG": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"<svg/>", "SVG", "magick"),
    "a zip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"PK\x03\x04" + bytes(99), "a zip", "unzip"),
    "a gzip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, gzip.compress(b"text"), "a gzip", "gunzip"),
    "a damaged gzip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"\x1f\x8b" + b"\xff" * 99, "a gzip", "gunzip"),
    "a NIfTI": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, VOLUME, "a NIfTI volume", "covid-ct predict"),
    "a packed NIfTI": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, gzip.compress(VOLUME), "a NIfTI volume", "covid-ct predict"),
    "a Netpbm": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, saved(PICTURE, "PPM"), "a Netpbm image", "magick"),
    "a signed TIFF": (ErrorCode.UNSUPPORTED_SAMPLE_DEPTH, deep_tiff(t339=2), "signed samples of 16 bits", "magick"),
    "32 bits in DICOM": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        ct(STORED.astype(np.uint32), RescaleSlope=1, RescaleIntercept=-1024),
        "32 bits",
        "dcmj2pnm +on +Ww -600 1500",
    ),
    "floating point in DICOM": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        ct(STORED, FloatPixelData=bytes(16)),
        "floating-point samples",
        "paramap2itkimage",
    ),
    "20 bits in a stream": (ErrorCode.UNSUPPORTED_SAMPLE_DEPTH, deep_jpeg_2000(), "more bits", "gdcmconv"),
    "a CIELAB TIFF": (ErrorCode.UNSUPPORTED_COLOUR_MODE, deep_tiff(t262=8), "photometric interpretation 8", "magick"),
    "a coloured palette": (ErrorCode.UNSUPPORTED_COLOUR_MODE, coloured_palette(), "a coloured palette", "dcmj2pnm"),
    "16-bit colours in DICOM": (
        ErrorCode.UNSUPPORTED_COLOUR_MODE,
        ct(np.stack([STORED] * 3, axis=-1)),
        "3 samples a pixel, of 16 bits",
        "dcmj2pnm",
    ),
    "an unknown syntax": (
        ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        ct(STORED).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"),
        "1.2.840.10008.1.2.7",
        "gdcmconv",
    ),
    "a hierarchical stream": (
        ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        compressed(jpeg(0xC5, 12)),
        "hierarchical",
        "gdcmconv",
    ),
    "a hierarchical JPEG": (ErrorCode.UNSUPPORTED_ENCODING, jpeg(0xC5, 12), "hierarchical", "ffmpeg"),
    "a JPEG of two components": (ErrorCode.UNSUPPORTED_ENCODING, jpeg(0xC1, 12, 2), "number of components", "ffmpeg"),
    "a deep BMP": (ErrorCode.UNSUPPORTED_ENCODING, bmp(64, 0), "64 bits a pixel", "magick"),
    "a BMP of unusual masks": (
        ErrorCode.UNSUPPORTED_ENCODING,
        bmp(32, 3, struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)),
        "unusual bit fields",
        "magick",
    ),
    "a TIFF of another compression": (ErrorCode.UNSUPPORTED_ENCODING, deep_tiff(t259=9), "compression 9", "magick"),
}

CALL = Callable[[], object]
REST: dict[str, tuple[ErrorCode, CALL]] = {
    "nothing": (ErrorCode.EMPTY_FILE, partial(decode, b"")),
    "a small picture": (ErrorCode.IMAGE_TOO_SMALL, partial(decode, saved(Image.new("L", (8, 8)), "PNG"))),
    "a large picture": (
        ErrorCode.TOO_MANY_PIXELS,
        partial(decode, saved(PICTURE, "PNG"), DecodeLimits(max_pixels=100)),
    ),
    "several frames": (ErrorCode.SEVERAL_FRAMES, partial(decode, ct(np.stack([STORED] * 2)))),
    "too many frames": (
        ErrorCode.TOO_MANY_FRAMES,
        lambda: list(study_slices(ct(np.stack([STORED] * 3)), "a", ReadOptions(32, DecodeLimits(max_frames=2)))),
    ),
    "another modality": (ErrorCode.NOT_CT, partial(decode, ct(STORED, Modality="MR"))),
    "a localizer": (ErrorCode.LOCALIZER, partial(decode, ct(STORED, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))),
    "an enhanced localizer": (ErrorCode.LOCALIZER, partial(decode, enhanced_localizer())),
    "another unit": (ErrorCode.NOT_HOUNSFIELD, partial(decode, ct(STORED, RescaleType="Z_EFF"))),
    "a coronal slice": (
        ErrorCode.NOT_AXIAL,
        partial(decode, ct(STORED, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
    ),
    "no pixels": (ErrorCode.NO_PIXEL_DATA, partial(decode, ct(STORED, PixelData=None))),
}


def refused(call: CALL) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value


def has_right_words(error: ServiceError) -> bool:
    """Whether damaged is said of damaged files only, and each unsupported kind has exactly one command."""
    is_damaged = error.code in (ErrorCode.DAMAGED_IMAGE, ErrorCode.DAMAGED_ARCHIVE)
    needs_command = error.code.startswith("unsupported") and error.code != ErrorCode.UNSUPPORTED_CONTENT_TYPE
    command = re.fullmatch(r"[^:]*( by its [^:]*)?\. Convert it with: [a-z0-9-]+ [^:]+", error.detail)
    has_command = command is not None if needs_command else "Convert it with" in error.detail
    return ("damaged" in error.detail) is is_damaged and has_command is needs_command


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_asked_for_again(name: str) -> None:
    error = refused(partial(decode, DAMAGED[name]))
    assert error.code == "damaged_image"
    assert "Send the" in error.detail
    assert has_right_words(error), error.detail


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_kind_is_named_with_the_command_that_converts_it(name: str) -> None:
    code, data, kind, command = UNSUPPORTED[name]
    error = refused(partial(decode, data))
    assert error.code == code, error.detail
    assert kind in error.detail
    assert f"Convert it with: {command}" in error.detail
    assert has_right_words(error), error.detail


def test_no_command_converts_a_file_of_unknown_kind() -> None:
    error = refused(partial(decode, b"text"))
    assert error.code == ErrorCode.UNSUPPORTED_IMAGE_TYPE
    assert error.detail.endswith("The type is detected from the content, not from the name.")


@pytest.mark.parametrize("name", REST)
def test_another_refusal_speaks_of_neither(name: str) -> None:
    code, call = REST[name]
    error = refused(call)
    assert error.code == code, error.detail
    assert has_right_words(error), error.detail


@pytest.mark.parametrize("problem", PROBLEM_EXAMPLES, ids=lambda problem: str(problem.code))
def test_the_documented_examples_keep_to_these_words(problem: ServiceError) -> None:
    assert has_right_words(problem), problem.detail


def test_every_code_of_an_image_is_tried_here() -> None:
    """The checks of the model are tried in tests/service/model/test_checks.py, `limit_exceeded` in cage/test_pool.py.

    `unusable_image` is the base of the codes.
    """
    codes = list(ErrorCode)
    of_images = codes[codes.index(ErrorCode.UNSUPPORTED_IMAGE_TYPE) : codes.index(ErrorCode.NO_LUNGS)]
    tried = {ErrorCode.DAMAGED_IMAGE, *(row[0] for row in UNSUPPORTED.values()), *(row[0] for row in REST.values())}
    assert tried == set(of_images) - {ErrorCode.UNUSABLE_IMAGE, ErrorCode.LIMIT_EXCEEDED}
