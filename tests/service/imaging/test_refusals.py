"""Every refusal of a file: its code, and what it names. Damaged and unsupported files are described as such."""

import gzip
import io
import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
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
from service.imaging.series.files import ReadOptions, study_slices
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES
from tests.support.files.dicoms import STREAMS, ct, ct_dataset, encapsulated, group, palette, phantom, written
from tests.support.files.lying_files import chunk, encoded

STORED = phantom()
GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257
PICTURE = Image.fromarray(GREY)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
RAMP = np.arange(256, dtype=np.uint16)
VOLUME = b"\0" * 344 + b"n+1\0" + bytes(100)

NO_RESCALE: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None}


def tiff(samples: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


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
    "a plain TIFF with an invalid tag": (tagged(tiff(GREY), 296, 3, new_tag=266), "tags are invalid"),
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

UNSUPPORTED: dict[str, tuple[ErrorCode, bytes, str, str]] = {
    # name: code, file, what names the kind, command
    "HEIC": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"\0\0\0\x18ftypheic" + bytes(99), "HEIC", "magick"),
    "JPEG 2000": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, encoded(PICTURE, "JPEG2000"), "JPEG 2000", "magick"),
    "a J2K stream": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, STREAMS[JPEG2000Lossless](GREY), "JPEG 2000", "magick"),
    "a PDF": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"%PDF-1.7", "a PDF document", "pdftoppm"),
    "PostScript": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript", "magick"),
    "SVG": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"<svg/>", "SVG", "magick"),
    "a zip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"PK\x03\x04" + bytes(99), "a zip", "unzip"),
    "a gzip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, gzip.compress(b"text"), "a gzip", "gunzip"),
    "a damaged gzip": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, b"\x1f\x8b" + b"\xff" * 99, "a gzip", "gunzip"),
    "a NIfTI": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, VOLUME, "a NIfTI volume", "covid-ct predict"),
    "a packed NIfTI": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, gzip.compress(VOLUME), "a NIfTI volume", "covid-ct predict"),
    "a Netpbm": (ErrorCode.UNSUPPORTED_IMAGE_TYPE, encoded(PICTURE, "PPM"), "a Netpbm image", "magick"),
    "a signed TIFF": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        tiff(DEEP.view(np.int16)),
        "signed samples of 16 bits",
        "magick",
    ),
    "a signed TIFF of 8 bits": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        tiff(GREY.view(np.int8)),
        "signed samples of 8 bits",
        "magick",
    ),
    "a TIFF of 32 bits": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        tiff(GREY.astype(np.uint32)),
        "unsigned samples of 32 bits",
        "magick",
    ),
    "a TIFF of floating-point numbers": (
        ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        tiff(GREY.astype(np.float32)),
        "floating-point samples of 32 bits",
        "magick",
    ),
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
    "a CIELAB TIFF": (
        ErrorCode.UNSUPPORTED_COLOUR_MODE,
        tagged(tiff(DEEP), 262, 8),
        "photometric interpretation 8",
        "magick",
    ),
    "a 16-bit TIFF in planes": (
        ErrorCode.UNSUPPORTED_COLOUR_MODE,
        tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
        "send grey or RGB",
        "magick",
    ),
    "a coloured palette": (
        ErrorCode.UNSUPPORTED_COLOUR_MODE,
        ct((STORED // 8).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR", **palette(RAMP, RAMP, RAMP * 0)),
        "a coloured palette",
        "dcmj2pnm",
    ),
    "16-bit colours in DICOM": (
        ErrorCode.UNSUPPORTED_COLOUR_MODE,
        ct(np.stack([STORED] * 3, axis=-1)),
        "3 samples a pixel, of 16 bits",
        "dcmj2pnm",
    ),
    "an unknown syntax": (
        ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        renamed(ct(STORED), "1.2.840.10008.1.2.1\0", "1.2.840.10008.1.2.7"),
        "1.2.840.10008.1.2.7",
        "gdcmconv",
    ),
    "a hierarchical stream": (
        ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
        encapsulated(jpeg(0xC5, 12), JPEGExtended12Bit, STORED),
        "hierarchical",
        "gdcmconv",
    ),
    "a hierarchical JPEG": (ErrorCode.UNSUPPORTED_ENCODING, jpeg(0xC5, 12), "hierarchical", "ffmpeg"),
    "a JPEG of two components": (ErrorCode.UNSUPPORTED_ENCODING, jpeg(0xC1, 12, 2), "number of components", "ffmpeg"),
    "a lossless JPEG": (
        ErrorCode.UNSUPPORTED_ENCODING,
        bytes(imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=16)),
        "lossless",
        "ffmpeg",
    ),
    "JPEG-LS": (ErrorCode.UNSUPPORTED_ENCODING, bytes(imagecodecs.jpegls_encode(GREY)), "JPEG-LS", "ffmpeg"),
    "a 12-bit JPEG": (
        ErrorCode.UNSUPPORTED_ENCODING,
        bytes(imagecodecs.jpeg8_encode(DEEP >> 4, bitspersample=12)),
        "not of 8 bits",
        "ffmpeg",
    ),
    "a 16-bit PNG with a transparent colour": (
        ErrorCode.UNSUPPORTED_ENCODING,
        deep_png_with_transparent_grey(),
        "transparent colour",
        "magick",
    ),
    "a premultiplied TIFF": (
        ErrorCode.UNSUPPORTED_ENCODING,
        tiff(np.stack([GREY, GREY], axis=-1), photometric="minisblack", extrasamples=["assocalpha"]),
        "multiplied by their transparency",
        "magick",
    ),
    "a deep BMP": (ErrorCode.UNSUPPORTED_ENCODING, bmp(64, 0), "BMP pixel depth (64)", "magick"),
    "a BMP with a large palette": (ErrorCode.UNSUPPORTED_ENCODING, bmp(8, 0, bytes(1200), 300), "palette", "magick"),
    "a BMP of unusual masks": (
        ErrorCode.UNSUPPORTED_ENCODING,
        bmp(32, 3, struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)),
        "BMP bitfields layout",
        "magick",
    ),
    "a TIFF of another compression": (
        ErrorCode.UNSUPPORTED_ENCODING,
        tagged(tiff(DEEP), 259, 9),
        "compression 9",
        "magick",
    ),
}

CALL = Callable[[], object]
AXIAL = "axial slice"
REST: dict[str, tuple[ErrorCode, CALL, str]] = {
    "nothing": (ErrorCode.EMPTY_FILE, partial(decode, b""), "0 bytes"),
    "a small picture": (ErrorCode.IMAGE_TOO_SMALL, partial(decode, encoded(Image.new("L", (15, 400)), "PNG")), "15 x"),
    "a small DICOM slice": (ErrorCode.IMAGE_TOO_SMALL, partial(decode, ct(np.zeros((8, 400), np.uint16))), "400 x 8"),
    "a large picture": (
        ErrorCode.TOO_MANY_PIXELS,
        partial(decode, encoded(PICTURE, "PNG"), DecodeLimits(max_pixels=2399)),
        "60 x 40",
    ),
    "a large DICOM slice": (
        ErrorCode.TOO_MANY_PIXELS,
        partial(decode, ct(STORED), DecodeLimits(max_pixels=4095)),
        "64 x 64",
    ),
    "several frames": (ErrorCode.SEVERAL_FRAMES, partial(decode, ct(np.stack([STORED] * 3))), "3 frames"),
    "an animated GIF": (ErrorCode.SEVERAL_FRAMES, partial(decode, encoded(PICTURE, "GIF", **FRAMES)), "several frames"),
    "an animated PNG": (ErrorCode.SEVERAL_FRAMES, partial(decode, encoded(PICTURE, "PNG", **FRAMES)), "several frames"),
    "a TIFF of two pages": (
        ErrorCode.SEVERAL_FRAMES,
        partial(decode, encoded(PICTURE, "TIFF", **FRAMES)),
        "several pages",
    ),
    "too many frames": (
        ErrorCode.TOO_MANY_FRAMES,
        lambda: list(study_slices(ct(np.stack([STORED] * 3)), "a", ReadOptions(32, DecodeLimits(max_frames=2)))),
        "2",
    ),
    "another modality": (ErrorCode.NOT_CT, partial(decode, ct(STORED, Modality="MR")), "modality MR"),
    "a video": (ErrorCode.NOT_CT, partial(decode, encapsulated(b"MPEG", MPEG4HP41, STORED)), "a video"),
    "no modality": (
        ErrorCode.NOT_CT,
        partial(decode, ct(STORED, Modality=None, SOPClassUID=SecondaryCaptureImageStorage)),
        "no known modality",
    ),
    "no image": (ErrorCode.NOT_CT, partial(decode, renamed(dicomdir(), "1.3.10", "1.3.99")), "modality"),
    "a localizer": (
        ErrorCode.LOCALIZER,
        partial(decode, ct(STORED, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "X"])),
        AXIAL,
    ),
    "an enhanced localizer": (
        ErrorCode.LOCALIZER,
        partial(
            decode,
            ct(
                STORED,
                PerFrameFunctionalGroupsSequence=[
                    group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
                ],
            ),
        ),
        AXIAL,
    ),
    **{
        f"a {name} slice": (ErrorCode.NOT_AXIAL, partial(decode, ct(STORED, ImageOrientationPatient=directions)), AXIAL)
        for name, directions in {
            "coronal": [1, 0, 0, 0, 0, -1],
            "sagittal": [0, 1, 0, 0, 0, -1],
            "slice at 45 degrees": [1, 0, 0, 0, 0.7071, -0.7071],
        }.items()
    },
    "an enhanced coronal slice": (
        ErrorCode.NOT_AXIAL,
        partial(
            decode,
            ct(
                STORED,
                SharedFunctionalGroupsSequence=[
                    group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
                ],
            ),
        ),
        AXIAL,
    ),
    "no rescale": (
        ErrorCode.NOT_HOUNSFIELD,
        partial(decode, ct(STORED, WindowCenter=-600, WindowWidth=1500, **NO_RESCALE)),
        "no RescaleSlope",
    ),
    "signed samples without a rescale": (
        ErrorCode.NOT_HOUNSFIELD,
        partial(decode, ct(STORED.astype(np.int16), **NO_RESCALE)),
        "no RescaleSlope",
    ),
    **{
        f"the unit {unit}": (
            ErrorCode.NOT_HOUNSFIELD,
            partial(decode, ct(STORED, RescaleType=unit)),
            f"the unit {unit}",
        )
        for unit in ("Z_EFF", "MGML", "ED")
    },
    "the unit of a frame": (
        ErrorCode.NOT_HOUNSFIELD,
        partial(
            decode,
            ct(
                STORED,
                SharedFunctionalGroupsSequence=[
                    group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024, RescaleType="ED")
                ],
            ),
        ),
        "the unit ED",
    ),
    "no pixels": (ErrorCode.NO_PIXEL_DATA, partial(decode, ct(STORED, PixelData=None)), "no pixel data"),
    "a PDF in DICOM": (ErrorCode.NO_PIXEL_DATA, partial(decode, pdf()), "document"),
    "a DICOMDIR": (ErrorCode.NO_PIXEL_DATA, partial(decode, dicomdir()), "DICOMDIR"),
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
    data, words = DAMAGED[name]
    error = refused(partial(decode, data))
    assert error.code == "damaged_image"
    assert words in error.detail
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


@pytest.mark.parametrize("data", [b"text", b"\0"])
def test_no_command_converts_a_file_of_unknown_kind(data: bytes) -> None:
    error = refused(partial(decode, data))
    assert error.code == ErrorCode.UNSUPPORTED_IMAGE_TYPE
    assert error.detail.endswith("The type is detected from the content, not from the name.")


@pytest.mark.parametrize("name", REST)
def test_another_refusal_speaks_of_neither(name: str) -> None:
    code, call, words = REST[name]
    error = refused(call)
    assert error.code == code, error.detail
    assert words in error.detail
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
