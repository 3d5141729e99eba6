"""DICOM files of the kinds that the tests need, written by pydicom."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gdcm
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

PATIENT = "MARKER^PATIENT"
"""A name that must appear nowhere."""

JPEG_XL = "1.2.840.10008.1.2.4.110"


def _lossless_jpeg(frame: NDArray[Any]) -> bytes:
    bits = 8 * frame.dtype.itemsize
    return bytes(imagecodecs.jpeg8_encode(frame.view(f"u{bits // 8}"), lossless=True, predictor=1, bitspersample=bits))


STREAMS: dict[str, Callable[[NDArray[Any]], bytes]] = {
    JPEGBaseline8Bit: lambda frame: bytes(imagecodecs.jpeg8_encode(frame, level=95)),
    JPEGExtended12Bit: lambda frame: bytes(imagecodecs.jpeg8_encode(frame, level=100, bitspersample=12)),
    JPEGLosslessSV1: _lossless_jpeg,
    JPEGLSLossless: lambda frame: bytes(imagecodecs.jpegls_encode(frame)),
    JPEG2000Lossless: lambda frame: bytes(
        imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, level=0)
    ),
    HTJ2K: lambda frame: bytes(imagecodecs.htj2k_encode(frame)),
    JPEG_XL: lambda frame: bytes(imagecodecs.jpegxl_encode(frame, lossless=True)),
}
"""Encoders of one frame, by transfer syntax; pydicom encodes RLE."""


def ct_dataset(pixels: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> Dataset:
    """A CT image of these samples, (H, W), (frames, H, W) or (H, W, 3); `changes` are elements, None removes one."""
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["tests"])
    dataset.Modality = "CT"
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.dtype.itemsize == 2:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    if syntax == RLELossless and "PixelData" not in changes:
        dataset.compress(syntax, pixels, generate_instance_uid=False)
    if syntax in STREAMS and "PixelData" not in changes:
        frames = pixels if "NumberOfFrames" in dataset else [pixels]
        dataset.PixelData = encapsulate([STREAMS[syntax](frame) for frame in frames])
        dataset["PixelData"].is_undefined_length = True
    for name, value in changes.items():
        if value is None:
            dataset.pop(name, None)
        else:
            setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset, *, preamble: bool = True) -> bytes:
    """The data set as a file."""
    syntax, file = dataset.file_meta.TransferSyntaxUID, io.BytesIO()
    if syntax == JPEG_XL:  # which pydicom 3.0 does not know
        dataset.file_meta.TransferSyntaxUID = HTJ2K
    dataset.save_as(file, enforce_file_format=True)
    data = file.getvalue().replace(HTJ2K.encode(), JPEG_XL.encode()) if syntax == JPEG_XL else file.getvalue()
    return data if preamble else data[132:]


def ct(pixels: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """A CT image as a file."""
    return written(ct_dataset(pixels, syntax, **changes))


def encapsulated(stream: bytes, syntax: str, pixels: NDArray[Any], **changes: Any) -> bytes:
    """A CT image as a file, with this compressed stream as its pixels."""
    dataset = ct_dataset(pixels, syntax, PixelData=encapsulate([stream]), **changes)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def groups(**sequences: Mapping[str, Any]) -> Dataset:
    """Functional groups of a frame: a sequence for each group, of one item with these elements."""
    item = Dataset()
    for sequence, elements in sequences.items():
        macro = Dataset()
        for name, value in elements.items():
            setattr(macro, name, value)
        setattr(item, sequence, [macro])
    return item


def palette(*ramps: NDArray[np.uint16]) -> dict[str, Any]:
    """Elements of a palette with these 256 values for red, green and blue."""
    elements: dict[str, Any] = {}
    for colour, ramp in zip(("Red", "Green", "Blue"), ramps, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = ramp.tobytes()
    return elements


def phantom(side: int = 64) -> NDArray[np.uint16]:
    """Stored samples with intercept -1024: air around, a soft-tissue ellipse with two lungs, a little texture."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    hounsfield = np.where(rows**2 + 1.4 * columns**2 < 0.16, 40.0, -1000.0)
    for centre in (-0.17, 0.17):
        hounsfield[(rows**2 + 3 * (columns - centre) ** 2) < 0.05] = -780.0
    texture = np.random.default_rng(0).integers(-20, 21, hounsfield.shape)
    return (hounsfield + texture + 1024).clip(0).astype(np.uint16)


def lossless_jpeg(folder: Path, data: bytes) -> bytes:
    """The same file in lossless JPEG, by GDCM, since pydicom can't write it."""
    (folder / "native.dcm").write_bytes(data)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "native.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "jpeg.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "jpeg.dcm").read_bytes()
