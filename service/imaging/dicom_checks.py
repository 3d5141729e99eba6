"""Checks of a DICOM header: CT with pixels of a supported kind."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.errors import ErrorCode, UnusableImageError, damaged_image, malformed_element, unsupported
from service.imaging.dicom_header import NATIVE, RLE, Elements, texts
from service.imaging.failures import decoding
from service.imaging.window import LUNG

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT_CLASSES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))
"""CT image, enhanced CT image, legacy converted enhanced CT image."""

_DIRECTORY: Final = "1.2.840.10008.1.3.10"
"""Media storage directory."""

CONVERT_COLOUR: Final = "dcmj2pnm +on in.dcm out.png"
_CONVERT_DEPTH: Final = f"dcmj2pnm +on +Ww {LUNG.centre:g} {LUNG.width:g} in.dcm out.png"
"""With the lung window."""

_GREYS: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

_END_OF_STREAM: Final = b"\xff\xd9"
"""Last marker of JPEG, JPEG-LS and JPEG 2000; padding may follow."""

_RLE_OFFSET: Final = (64).to_bytes(4, "little")
"""Offset of the first segment, which is behind the header (PS3.5 G.5)."""


@dataclass(frozen=True, slots=True)
class Header:
    """Description of the pixels, known before decoding."""

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int  # of a pixel: 1 for grey, 3 for colour
    bits: int  # of a sample in memory: 8 or 16
    stored: int  # number of these bits that are used
    shift: int  # number of unused bits below them
    signed: bool
    photometric: str
    planar: int  # 1 if colour planes are stored one after another


def check_header(elements: Elements, *, is_whole: bool = True) -> Header:
    """Check the header, most useful reason for a refusal first.

    Args:
        elements: of the file.
        is_whole: whether all pixels must be there.

    Raises:
        UnusableImageError: not CT, a localizer, without pixels, truncated, or unsupported.
    """
    _check_content(elements)
    if not elements.pixels:
        if elements.is_truncated:
            raise damaged_image("it is truncated before its pixels")
        raise UnusableImageError(
            "The DICOM file holds no pixel data, or is cut off before its end; send an image.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    header = _header(elements)
    _check_kind(header)
    if is_whole:
        _check_frames(header, elements.pixels)
    return header


def check_frame_type(groups: list["Dataset"]) -> None:
    """Check the FrameType in the functional groups of a frame.

    Args:
        groups: items of CTImageFrameTypeSequence; may be empty.

    Raises:
        UnusableImageError: it is a localizer.
    """
    for group in groups:
        _refuse_localizer(texts(group, "FrameType"), "FrameType (0008,9007)")


def _check_content(elements: Elements) -> None:
    dataset = elements.dataset
    if "EncapsulatedDocument" in dataset:
        raise UnusableImageError(
            "The DICOM file holds a document (an encapsulated PDF or the like), not an image.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    if elements.sop_class == _DIRECTORY:
        raise UnusableImageError(
            "The DICOM file is a DICOMDIR, a list of files; send the image files that it lists.",
            code=ErrorCode.NO_PIXEL_DATA,
        )
    modality = str(dataset.get("Modality") or "").strip(" \0")
    if not modality and elements.is_truncated:
        raise damaged_image("it is truncated in its header")
    if modality != "CT" and (modality or elements.sop_class not in _CT_CLASSES):
        shown = f"modality {modality}" if re.fullmatch(r"[A-Z]{1,16}", modality) else "no known modality"
        raise UnusableImageError(
            f"The DICOM file is of {shown}, and the model knows CT slices only.", code=ErrorCode.NOT_CT
        )
    _refuse_localizer(texts(dataset, "ImageType"), "ImageType (0008,0008)")
    if elements.is_float:
        raise unsupported(
            "The DICOM file has floating-point samples; send 8 or 16 bits.",
            "paramap2itkimage -t nii --inputDICOM in.dcm --outputDirectory out",
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )


def _refuse_localizer(values: list[str], element: str) -> None:
    if "LOCALIZER" in values:
        raise UnusableImageError(
            f"The DICOM file is a localizer (scout), by its {element}; send an axial slice of the series.",
            code=ErrorCode.LOCALIZER,
        )


def _header(elements: Elements) -> Header:
    dataset = elements.dataset
    bits = _whole(dataset, "BitsAllocated", 0x00280100)
    stored = _whole(dataset, "BitsStored", 0x00280101, bits)
    high = _whole(dataset, "HighBit", 0x00280102, stored - 1)
    samples = _whole(dataset, "SamplesPerPixel", 0x00280002, 1)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip(" \0")
    if not stored - 1 <= high < bits and bits in (8, 16):
        raise malformed_element("HighBit", 0x00280102, f"is {high}, with {stored} bits stored in {bits}")
    return Header(
        syntax=elements.syntax,
        rows=_whole(dataset, "Rows", 0x00280010),
        columns=_whole(dataset, "Columns", 0x00280011),
        frames=_whole(dataset, "NumberOfFrames", 0x00280008, 1) or 1,  # some writers say 0
        samples=samples,
        bits=bits,
        stored=stored,
        shift=high + 1 - stored,
        signed=_whole(dataset, "PixelRepresentation", 0x00280103, 0) == 1,
        photometric=photometric or ("MONOCHROME2" if samples == 1 else "RGB"),
        planar=_whole(dataset, "PlanarConfiguration", 0x00280006, 0),
    )


def _whole(dataset: "Dataset", name: str, tag: int, default: int | None = None) -> int:
    try:
        value = dataset.get(name)
        if value not in (None, ""):
            return int(value)
    except (TypeError, ValueError):
        raise malformed_element(name, tag, "is not a whole number") from None
    if default is None:
        raise malformed_element(name, tag, "is missing")
    return default


def _check_kind(header: Header) -> None:
    if header.bits not in (8, 16) or not 1 <= header.stored <= header.bits:
        raise unsupported(
            f"The DICOM file has {header.stored} bits in samples of {header.bits}; samples of 8 or 16 bits are read.",
            _CONVERT_DEPTH,
            ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
        )
    is_grey = header.samples == 1 and header.photometric in _GREYS
    is_colour = header.samples == 3 and header.bits == 8 and header.photometric in _COLOURS
    if not (is_grey or is_colour):
        raise unsupported(
            f"The DICOM file has {header.samples} samples a pixel, of {header.bits} bits, in an unsupported colour "
            "model; send grey (MONOCHROME1 or 2) or 8-bit RGB.",
            CONVERT_COLOUR,
            ErrorCode.UNSUPPORTED_COLOUR_MODE,
        )
    if header.rows < 1 or header.columns < 1 or header.frames < 1:
        raise damaged_image(f"it announces {header.frames} frames of {header.columns} x {header.rows} pixels")


def _check_frames(header: Header, pixels: bytes) -> None:
    """Compare the announced pixels with those that are there; missing compressed ones are found by decoding."""
    if header.syntax in NATIVE:
        pixel_bytes = 2 if header.photometric == "YBR_FULL_422" else header.samples * (header.bits // 8)
        frame_bytes = header.rows * header.columns * pixel_bytes
        needed = frame_bytes * header.frames
        if len(pixels) < needed:
            raise damaged_image(f"it has {len(pixels)} of {needed} bytes of pixels: it is truncated")
        frames = len(pixels) // frame_bytes
        padding = min(header.rows, header.columns) * pixel_bytes - 1  # less than a row or a column
        if frames == header.frames and len(pixels) > needed + padding:
            raise damaged_image(
                f"it has {len(pixels)} bytes of pixels, and {header.frames} frames of {header.columns} x {header.rows} "
                f"need {needed}: Rows or Columns is wrong"
            )
    else:
        frames = _compressed_frames(header.syntax, pixels)
    if frames > header.frames:
        raise malformed_element(
            "NumberOfFrames", 0x00280008, f"announces {header.frames}, and there are pixels of {frames} frames"
        )


def _compressed_frames(syntax: str, pixels: bytes) -> int:
    """Count the fragments with an RLE header or the end of a stream; JPEG XL has no end marker, so none is found."""
    from pydicom.encaps import generate_fragments

    with decoding("its compressed pixels are truncated, or have no fragments"):
        _, *fragments = generate_fragments(pixels)  # the first is the offset table
    if syntax == RLE:
        return sum(fragment[4:8] == _RLE_OFFSET for fragment in fragments)
    return sum(_END_OF_STREAM in fragment[-10:] for fragment in fragments)
