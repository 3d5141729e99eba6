"""TIFFs beyond 8 bits and of several pages have their right grey."""

import io
import struct

import numpy as np
import pytest
import tifffile

from service.errors import UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import decode
from tests.support.files.lying_files import encoded_tiff

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257
TWELVE = (GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded_tiff(DEEP), id="16 bits"),
        pytest.param(encoded_tiff(65535 - DEEP, photometric="miniswhite"), id="16 bits, white is zero"),
        pytest.param(encoded_tiff(np.stack([DEEP] * 3, axis=-1), photometric="rgb"), id="16-bit RGB"),
        pytest.param(encoded_tiff(TWELVE, bitspersample=12), id="12 bits"),
        pytest.param(encoded_tiff(255 - GREY, photometric="miniswhite"), id="8 bits, white is zero"),
    ],
)
def test_a_tiff_has_its_right_grey(data: bytes) -> None:
    assert np.abs(decode(data)[0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "lzma", "zstd"])
def test_a_deep_tiff_of_every_compression_is_read_and_a_cut_one_is_damaged(
    cage: BlockingCage, compression: str | None
) -> None:
    """In the cage, because its workers can't import a codec."""
    data = encoded_tiff(DEEP, compression=compression, predictor=compression == "zlib")
    np.testing.assert_array_equal(cage.decode(data).slice_[0], GREY)
    with pytest.raises(UnusableImageError) as caught:
        cage.decode(data[:-200])
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_full_page_of_a_tiff_is_the_picture(order: int) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for samples in (GREY, GREY[::2, ::2])[::order]:
            writer.write(samples, subfiletype=int(samples.shape != GREY.shape), metadata=None)
    np.testing.assert_array_equal(decode(file.getvalue())[0], GREY)


def test_a_strange_tag_of_a_valid_tiff_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Pillow warns, for example of a tag with more values than it expects; the file can be read."""
    data = encoded_tiff(GREY).replace(struct.pack("<HHII", 278, 3, 1, 40), struct.pack("<HHII", 278, 3, 2, 40))
    np.testing.assert_array_equal(decode(data)[0], GREY)
    assert not recwarn.list
