"""DICOM files of the kinds that the tests need, written by pydicom."""

import io
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

PATIENT = "MARKER^PATIENT"
"""A name that must appear nowhere."""


def ct_dataset(pixels: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> Dataset:
    """A CT image of these stored samples, (H, W), (frames, H, W) or (H, W, 3); `changes` by keyword, None removes."""
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
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset, *, preamble: bool = True) -> bytes:
    """The data set as a file."""
    file = io.BytesIO()
    if preamble:
        dataset.save_as(file, enforce_file_format=True)
    else:
        dataset.save_as(file, implicit_vr=False, little_endian=True)
        return file.getvalue()[132:] if file.getvalue()[128:132] == b"DICM" else file.getvalue()
    return file.getvalue()


def ct(pixels: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **changes: Any) -> bytes:
    """A CT image as a file."""
    return written(ct_dataset(pixels, syntax, **changes))


def phantom(side: int = 64) -> NDArray[np.uint16]:
    """Stored samples with intercept -1024: air around, a soft-tissue ellipse with two lungs, a little texture."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    hounsfield = np.where(rows**2 + 1.4 * columns**2 < 0.16, 40.0, -1000.0)
    for centre in (-0.17, 0.17):
        hounsfield[(rows**2 + 3 * (columns - centre) ** 2) < 0.05] = -780.0
    texture = np.random.default_rng(0).integers(-20, 21, hounsfield.shape)
    return (hounsfield + texture + 1024).clip(0).astype(np.uint16)


def compressed_dataset(stored: NDArray[np.uint16], syntax: str) -> Dataset:
    """A CT image of these stored samples with compressed pixels."""
    if syntax == JPEG2000Lossless:  # which pydicom can't write without another package
        file = io.BytesIO()
        Image.fromarray(stored).save(file, "JPEG2000", no_jp2=True)
        dataset = ct_dataset(stored, syntax, PixelData=encapsulate([file.getvalue()]))
        dataset["PixelData"].is_undefined_length = True
        return dataset
    dataset = ct_dataset(stored, BitsStored=12, HighBit=11)
    dataset.compress(syntax, stored, generate_instance_uid=False)
    return dataset


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
