import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from service.errors import UnusableImageError
from service.imaging.decode import decode
from service.imaging.dicom.reader import DEFLATED, EXPLICIT
from tests.support.files.dicoms import JPEG_XL, ct, phantom

STORED = phantom()


@pytest.mark.parametrize("syntax", [EXPLICIT, RLELossless, JPEGLSLossless, JPEG_XL])
def test_more_frames_than_announced_are_a_named_contradiction(syntax: str) -> None:
    with pytest.raises(UnusableImageError, match=r"NumberOfFrames \(0028,0008\) announces 2, .* 3 frames") as caught:
        decode(ct(np.stack([STORED] * 3), syntax, NumberOfFrames=2))
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (40, 64), (64, 40)])
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_more_pixels_than_rows_and_columns_announce_are_another_size(syntax: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnusableImageError, match=r"Rows or Columns is wrong|of another size than its header") as caught:
        decode(ct(STORED, syntax, Rows=size[0], Columns=size[1]))
    assert caught.value.code == "damaged_image"
