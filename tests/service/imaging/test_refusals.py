"""Every refusal of a file: its code, and what it names. Damaged and unsupported files are described as such."""

import gzip
import re
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    MPEG4HP41,
    EncapsulatedPDFStorage,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from service.errors import ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits, decode
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES
from tests.support.files.dicoms import STREAMS, ct, ct_dataset, encapsulated, groups, palette, phantom, written
from tests.support.files.lying_files import chunk, encoded, encoded_tiff

STORED = phantom()
GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257
PICTURE = Image.fromarray(GREY)
ANIMATED = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
RAMP = np.arange(256, dtype=np.uint16)
VOLUME = b"\0" * 344 + b"n+1\0" + bytes(100)

NO_RESCALE: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None}


def tagged(data: bytes, tag: int, value: int, new_tag: int | None = None) -> bytes:
    """A TIFF in which a tag of two bytes has another value, and perhaps another number."""
    changed = bytearray(data)
    at = int.from_bytes(data[4:8], "little") + 2
    while int.from_bytes(data[at : at + 2], "little") != tag:
        at += 12
    struct.pack_into("<HHIH", changed, at, new_tag or tag, 3, 1, value)
    return bytes(changed)


def bmp(depth: int, compression: int, masks: bytes = b"", colours: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, depth, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(masks)) + head + masks + bytes(9000)


def jpeg(frame: int, precision: int, components: int = 1) -> bytes:
    """The head of a JPEG stream of a process."""
    parts = b"".join(bytes((number + 1, 0x11, 0)) for number in range(components))
    size = struct.pack(">HBHHB", 8 + len(parts), precision, 64, 64, components)
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    return b"\xff\xd8\xff" + bytes((frame,)) + size + parts + scan + bytes(64) + b"\xff\xd9"


def deep_png_with_transparent_grey() -> bytes:
    data = encoded(Image.fromarray(DEEP), "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk(b"tRNS", struct.pack(">H", 257)) + data[at:]


def deep_jpeg_2000() -> bytes:
    """A stream whose header is changed to 20 bits a sample."""
    data = ct(STORED, JPEG2000Lossless)
    at = data.index(b"\xff\x4f\xff\x51")
    return data[: at + 42] + bytes((19,)) + data[at + 43 :]


def pdf() -> bytes:
    dataset = ct_dataset(STORED, PixelData=None, SOPClassUID=EncapsulatedPDFStorage, Modality="DOC")
    dataset.EncapsulatedDocument = b"%PDF-1.7"
    return written(dataset)


def dicomdir() -> bytes:
    """A list of files: valid, and without any element that an image has."""
    dataset = Dataset()
    dataset.file_meta = ct_dataset(STORED).file_meta
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.FileSetID = "ARCHIVE"
    return written(dataset)


def renamed(data: bytes, old: str, new: str) -> bytes:
    assert old.encode() in data
    return data.replace(old.encode(), new.encode().ljust(len(old), b"\0"))


DAMAGED: dict[str, tuple[bytes, str]] = {
    "half a PNG": (encoded(PICTURE, "PNG")[:-600], "truncated or damaged"),
    "half a JPEG": (encoded(PICTURE, "JPEG")[:600], "truncated or damaged"),
    "half a TIFF": (encoded(PICTURE, "TIFF", compression="tiff_lzw")[:600], "TIFF tags"),
    "half a GIF": (encoded(PICTURE, "GIF")[:600], "header"),
    "half a WebP": (encoded(PICTURE, "WEBP", lossless=True)[:600], "header"),
    "half a BMP": (encoded(PICTURE, "BMP")[:1200], "truncated or damaged"),
    "the signature of a PNG": (encoded(PICTURE, "PNG")[:12], "header"),
    "the first bytes of a JPEG": (b"\xff\xd8\xff\xe0 not much of a jpeg", "header"),
    "a plain TIFF with an invalid tag": (tagged(encoded_tiff(GREY), 296, 3, new_tag=266), "tags are invalid"),
    "half a DICOM file": (ct(STORED)[:-100], "truncated"),
    "a DICOM file that hardly begins": (ct(STORED)[:140], "truncated in its header"),
    "DICOM of a size that is a lie": (ct(STORED, Rows=60_000, Columns=60_000), "truncated"),
    "DICOM without Rows": (ct(STORED, Rows=None), "Rows (0028,0010)"),
    "a slope of 0": (ct(STORED, RescaleSlope=0), "RescaleSlope (0028,1053)"),
    "a slope in letters": (
        renamed(ct(STORED, RescaleSlope="1.000000"), "1.000000", "one     "),
        "RescaleSlope (0028,1053)",
    ),
    "two intercepts": (ct(STORED, RescaleIntercept=["-1024", "-24"]), "RescaleIntercept (0028,1052)"),
    "a high bit below the stored ones": (ct(STORED, BitsStored=12, HighBit=5), "HighBit (0028,0102)"),
    "a high bit above the allocated ones": (ct(STORED, BitsStored=12, HighBit=16), "HighBit (0028,0102)"),
    "a palette without a palette": (
        ct(np.zeros((64, 64), np.uint8), PhotometricInterpretation="PALETTE COLOR"),
        "(0028,1101)",
    ),
}

TYPE, DEPTH, COLOURS, SYNTAX, ENCODING = (
    ErrorCode.UNSUPPORTED_IMAGE_TYPE,
    ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
    ErrorCode.UNSUPPORTED_COLOUR_MODE,
    ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
    ErrorCode.UNSUPPORTED_ENCODING,
)

UNSUPPORTED: dict[str, tuple[ErrorCode, bytes, str, str]] = {
    # name: code, file, what names the kind, command
    "HEIC": (TYPE, b"\0\0\0\x18ftypheic" + bytes(99), "HEIC", "magick"),
    "JPEG 2000": (TYPE, encoded(PICTURE, "JPEG2000"), "JPEG 2000", "magick"),
    "a J2K stream": (TYPE, STREAMS[JPEG2000Lossless](GREY), "JPEG 2000", "magick"),
    "a PDF": (TYPE, b"%PDF-1.7", "a PDF document", "pdftoppm"),
    "PostScript": (TYPE, b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript", "magick"),
    "SVG": (TYPE, b"<svg/>", "SVG", "magick"),
    "a gzip": (TYPE, gzip.compress(b"text"), "a gzip", "gunzip"),
    "a damaged gzip": (TYPE, b"\x1f\x8b" + b"\xff" * 99, "a gzip", "gunzip"),
    "a Netpbm": (TYPE, encoded(PICTURE, "PPM"), "a Netpbm image", "magick"),
    "a signed TIFF": (DEPTH, encoded_tiff(DEEP.view(np.int16)), "signed samples of 16 bits", "magick"),
    "a signed TIFF of 8 bits": (DEPTH, encoded_tiff(GREY.view(np.int8)), "signed samples of 8 bits", "magick"),
    "a TIFF of 32 bits": (DEPTH, encoded_tiff(GREY.astype(np.uint32)), "unsigned samples of 32 bits", "magick"),
    "a TIFF of floating-point numbers": (
        DEPTH,
        encoded_tiff(GREY.astype(np.float32)),
        "floating-point samples of 32 bits",
        "magick",
    ),
    "32 bits in DICOM": (
        DEPTH,
        ct(STORED.astype(np.uint32), RescaleSlope=1, RescaleIntercept=-1024),
        "32 bits",
        "dcmj2pnm +on +Ww -600 1500",
    ),
    "floating point in DICOM": (
        DEPTH,
        ct(STORED, FloatPixelData=bytes(16)),
        "floating-point samples",
        "paramap2itkimage",
    ),
    "20 bits in a stream": (DEPTH, deep_jpeg_2000(), "more bits", "gdcmconv"),
    "a CIELAB TIFF": (COLOURS, tagged(encoded_tiff(DEEP), 262, 8), "photometric interpretation 8", "magick"),
    "a 16-bit TIFF in planes": (
        COLOURS,
        encoded_tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
        "send grey or RGB",
        "magick",
    ),
    "a coloured palette": (
        COLOURS,
        ct((STORED // 8).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR", **palette(RAMP, RAMP, RAMP * 0)),
        "a coloured palette",
        "dcmj2pnm",
    ),
    "16-bit colours in DICOM": (
        COLOURS,
        ct(np.stack([STORED] * 3, axis=-1)),
        "3 samples a pixel, of 16 bits",
        "dcmj2pnm",
    ),
    "an unknown syntax": (
        SYNTAX,
        renamed(ct(STORED), "1.2.840.10008.1.2.1\0", "1.2.840.10008.1.2.7"),
        "1.2.840.10008.1.2.7",
        "gdcmconv",
    ),
    "a hierarchical stream": (
        SYNTAX,
        encapsulated(jpeg(0xC5, 12), JPEGExtended12Bit, STORED),
        "hierarchical",
        "gdcmconv",
    ),
    "a hierarchical JPEG": (ENCODING, jpeg(0xC5, 12), "hierarchical", "ffmpeg"),
    "a JPEG of two components": (ENCODING, jpeg(0xC1, 12, 2), "number of components", "ffmpeg"),
    "a lossless JPEG": (
        ENCODING,
        bytes(imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=16)),
        "lossless",
        "ffmpeg",
    ),
    "JPEG-LS": (ENCODING, bytes(imagecodecs.jpegls_encode(GREY)), "JPEG-LS", "ffmpeg"),
    "a 12-bit JPEG": (
        ENCODING,
        bytes(imagecodecs.jpeg8_encode(DEEP >> 4, bitspersample=12)),
        "not of 8 bits",
        "ffmpeg",
    ),
    "a 16-bit PNG with a transparent colour": (
        ENCODING,
        deep_png_with_transparent_grey(),
        "transparent colour",
        "magick",
    ),
    "a premultiplied TIFF": (
        ENCODING,
        encoded_tiff(np.stack([GREY, GREY], axis=-1), photometric="minisblack", extrasamples=["assocalpha"]),
        "multiplied by their transparency",
        "magick",
    ),
    "a deep BMP": (ENCODING, bmp(64, 0), "BMP pixel depth (64)", "magick"),
    "a BMP with a large palette": (ENCODING, bmp(8, 0, bytes(1200), 300), "palette", "magick"),
    "a BMP of unusual masks": (
        ENCODING,
        bmp(32, 3, struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)),
        "BMP bitfields layout",
        "magick",
    ),
    "a TIFF of another compression": (ENCODING, tagged(encoded_tiff(DEEP), 259, 9), "compression 9", "magick"),
}

AXIAL = "axial slice"
LOCALIZER = groups(CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]})
CORONAL: dict[str, Any] = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
CORONAL_FRAME = groups(PlaneOrientationSequence=CORONAL)
RESCALE = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "ED"}
DENSITY = groups(PixelValueTransformationSequence=RESCALE)
NOT_AXIAL, NOT_CT, NOT_HOUNSFIELD = ErrorCode.NOT_AXIAL, ErrorCode.NOT_CT, ErrorCode.NOT_HOUNSFIELD
FRAMES, NO_PIXELS, SMALL = ErrorCode.SEVERAL_FRAMES, ErrorCode.NO_PIXEL_DATA, ErrorCode.IMAGE_TOO_SMALL

REST: dict[str, tuple[ErrorCode, bytes, str]] = {
    "nothing": (ErrorCode.EMPTY_FILE, b"", "0 bytes"),
    "a small picture": (SMALL, encoded(Image.new("L", (15, 400)), "PNG"), "15 x 400"),
    "a small DICOM slice": (SMALL, ct(np.zeros((8, 400), np.uint16)), "400 x 8"),
    "a large picture": (ErrorCode.TOO_MANY_PIXELS, encoded(Image.new("L", (101, 100)), "PNG"), "101 x 100"),
    "a large DICOM slice": (ErrorCode.TOO_MANY_PIXELS, ct(np.zeros((100, 101), np.uint16)), "101 x 100"),
    "several frames": (FRAMES, ct(np.stack([STORED] * 3)), "3 frames"),
    "an animated GIF": (FRAMES, encoded(PICTURE, "GIF", **ANIMATED), "several frames"),
    "an animated PNG": (FRAMES, encoded(PICTURE, "PNG", **ANIMATED), "several frames"),
    "a TIFF of two pages": (FRAMES, encoded(PICTURE, "TIFF", **ANIMATED), "several pages"),
    "a video": (NOT_CT, encapsulated(b"MPEG", MPEG4HP41, STORED), "a video"),
    "another modality": (NOT_CT, ct(STORED, Modality="MR"), "modality MR"),
    "no modality": (NOT_CT, ct(STORED, Modality=None, SOPClassUID=SecondaryCaptureImageStorage), "no known modality"),
    "no image": (NOT_CT, renamed(dicomdir(), "1.3.10", "1.3.99"), "modality"),
    "a localizer": (ErrorCode.LOCALIZER, ct(STORED, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "X"]), AXIAL),
    "an enhanced localizer": (ErrorCode.LOCALIZER, ct(STORED, PerFrameFunctionalGroupsSequence=[LOCALIZER]), AXIAL),
    "a coronal slice": (NOT_AXIAL, ct(STORED, **CORONAL), AXIAL),
    "a sagittal slice": (NOT_AXIAL, ct(STORED, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), AXIAL),
    "a slice at 45 degrees": (NOT_AXIAL, ct(STORED, ImageOrientationPatient=[1, 0, 0, 0, 0.7071, -0.7071]), AXIAL),
    "an enhanced coronal slice": (NOT_AXIAL, ct(STORED, SharedFunctionalGroupsSequence=[CORONAL_FRAME]), AXIAL),
    "no rescale": (NOT_HOUNSFIELD, ct(STORED, WindowCenter=-600, WindowWidth=1500, **NO_RESCALE), "no RescaleSlope"),
    "signed, no rescale": (NOT_HOUNSFIELD, ct(STORED.astype(np.int16), **NO_RESCALE), "no RescaleSlope"),
    "atomic numbers": (NOT_HOUNSFIELD, ct(STORED, RescaleType="Z_EFF"), "the unit Z_EFF"),
    "concentrations": (NOT_HOUNSFIELD, ct(STORED, RescaleType="MGML"), "the unit MGML"),
    "densities in a frame": (NOT_HOUNSFIELD, ct(STORED, SharedFunctionalGroupsSequence=[DENSITY]), "the unit ED"),
    "no pixels": (NO_PIXELS, ct(STORED, PixelData=None), "no pixel data"),
    "a PDF in DICOM": (NO_PIXELS, pdf(), "document"),
    "a DICOMDIR": (NO_PIXELS, dicomdir(), "DICOMDIR"),
}


def refused(data: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        decode(data, DecodeLimits(max_pixels=10_000))
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
    data, words = DAMAGED[name]
    error = refused(data)
    assert error.code == "damaged_image"
    assert words in error.detail
    assert "Send the" in error.detail
    assert has_right_words(error), error.detail


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"PK\x03\x04" + bytes(99), "a zip"), (VOLUME, "a NIfTI volume"), (gzip.compress(VOLUME), "a NIfTI volume")],
)
def test_a_zip_or_a_volume_is_directed_to_the_route_of_studies(data: bytes, kind: str) -> None:
    error = refused(data)
    assert error.code == TYPE
    assert f"but {kind}; send one of PNG, JPEG" in error.detail
    assert "A study (/predict/study, covid-ct study) may also be NIfTI or a zip." in error.detail


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_kind_is_named_with_the_command_that_converts_it(name: str) -> None:
    code, data, kind, command = UNSUPPORTED[name]
    error = refused(data)
    assert error.code == code, error.detail
    assert kind in error.detail
    assert f"Convert it with: {command}" in error.detail
    assert has_right_words(error), error.detail


@pytest.mark.parametrize("data", [b"text", b"\0"])
def test_no_command_converts_a_file_of_unknown_kind(data: bytes) -> None:
    error = refused(data)
    assert error.code == ErrorCode.UNSUPPORTED_IMAGE_TYPE
    assert error.detail.endswith("The type is detected from the content, not from the name.")


@pytest.mark.parametrize("name", REST)
def test_another_refusal_speaks_of_neither(name: str) -> None:
    code, data, words = REST[name]
    error = refused(data)
    assert error.code == code, error.detail
    assert words in error.detail
    assert has_right_words(error), error.detail


@pytest.mark.parametrize("problem", PROBLEM_EXAMPLES, ids=lambda problem: str(problem.code))
def test_the_documented_examples_keep_to_these_words(problem: ServiceError) -> None:
    assert has_right_words(problem), problem.detail


def test_every_code_of_an_image_is_tried_here() -> None:
    """Others are tried in tests/service/model and cage/test_cage.py; `unusable_image` is the base of the codes."""
    codes = list(ErrorCode)
    of_images = codes[codes.index(ErrorCode.UNSUPPORTED_IMAGE_TYPE) : codes.index(ErrorCode.NO_LUNGS)]
    tried = {ErrorCode.DAMAGED_IMAGE, *(row[0] for row in UNSUPPORTED.values()), *(row[0] for row in REST.values())}
    assert tried == set(of_images) - {ErrorCode.UNUSABLE_IMAGE, ErrorCode.LIMIT_EXCEEDED, ErrorCode.TOO_MANY_FRAMES}
