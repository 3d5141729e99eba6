"""Compares DICOM with PNG files, to see whether decoding keeps up with the network."""

import io
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, JPEGLosslessSV1, generate_uid

from benchmarks.contenders import Contender
from benchmarks.load import load_with_wrk, wait_for_response
from benchmarks.results import Decoding
from service.imaging.window import LUNG

_CONNECTIONS: Final = 16
_INTERCEPT: Final = -1024
_NOISE: Final = 15.0
"""Standard deviation in Hounsfield units; without noise the file would be unrealistically small."""


def measure_decoding(contender: Contender, image: Path, seconds: int, rounds: int, work: Path) -> Decoding:
    """Load the service with the image, a grey PNG in the lung window, and the same as DICOM in turns."""
    dicom = work / "slice.dcm"
    dicom.write_bytes(lossless_dicom(image))
    png_rates, dicom_rates = [], []
    with contender.running(work / "log") as process:
        for file in (image, dicom):
            wait_for_response(process, contender.url, file.read_bytes())
        for _ in range(rounds):
            png_rates.append(load_with_wrk(contender.url, image, _CONNECTIONS, seconds).rate)
            dicom_rates.append(load_with_wrk(contender.url, dicom, _CONNECTIONS, seconds).rate)
    return Decoding(
        precision=contender.precision,
        connections=_CONNECTIONS,
        png_rates=png_rates,
        dicom_rates=dicom_rates,
        dicom_bytes=dicom.stat().st_size,
    )


def lossless_dicom(image: Path) -> bytes:
    """Write an image as a CT file: Hounsfield units of the lung window, noise, 12 bits in 16, lossless JPEG."""
    grey = np.asarray(Image.open(image).convert("L"), dtype=np.float64)
    hounsfield = LUNG.centre + LUNG.width * (grey / 255 - 0.5)
    noise = np.random.default_rng(0).normal(0, _NOISE, grey.shape)
    stored = (hounsfield + noise - _INTERCEPT).round().clip(0, 4095).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["benchmark"])
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, _INTERCEPT
    dataset.PixelData = encapsulate([bytes(imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=12))])
    dataset["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
