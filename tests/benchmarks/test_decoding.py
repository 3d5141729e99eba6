import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from benchmarks.decoding import lossless_dicom
from service.imaging.decode import decode

SLICE = Path(__file__).parents[2] / "examples" / "slice.png"


def test_the_dicom_file_is_lossless_jpeg_and_shows_the_same_slice() -> None:
    data = lossless_dicom(SLICE)
    header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless, Non-Hierarchical, First-Order")
    assert (header.Rows, header.Columns, header.BitsStored) == (512, 512, 12)
    shown = decode(data)[0].astype(int)
    difference = np.abs(shown - np.asarray(Image.open(SLICE).convert("L"), dtype=int))
    assert difference.mean() < 4, "only the noise"
    assert len(data) > 100_000, "as large as a scanner's"
