import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.lossless_jpeg import LosslessJpegError, decode_lossless_jpeg
from tests.support.dicoms import ct, lossless_jpeg, phantom


@pytest.fixture
def stream(tmp_path: Path) -> bytes:
    """A lossless JPEG as GDCM writes it."""
    data = lossless_jpeg(tmp_path, ct(phantom()))
    return data[data.index(b"\xff\xd8\xff") : data.rindex(b"\xff\xd9") + 2]


def test_every_sample_comes_back(stream: bytes) -> None:
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), phantom())


def test_values_of_all_16_bits_come_back(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 16, (32, 48), dtype=np.uint16)
    data = lossless_jpeg(tmp_path, ct(noise))
    np.testing.assert_array_equal(decode_lossless_jpeg(data[data.index(b"\xff\xd8\xff") :]), noise)


@pytest.mark.parametrize("keep", [0, 1, 3, 20, 60, 200, 1000])
def test_a_truncated_stream_is_refused(stream: bytes, keep: int) -> None:
    with pytest.raises(LosslessJpegError):
        decode_lossless_jpeg(stream[:keep])


def test_another_predictor_is_refused(stream: bytes) -> None:
    at = stream.index(b"\xff\xda") + 7
    assert stream[at] == 1
    with pytest.raises(LosslessJpegError, match="predictor"):
        decode_lossless_jpeg(stream[:at] + b"\x04" + stream[at + 1 :])


def test_a_huge_size_is_refused_before_any_work(stream: bytes) -> None:
    at = stream.index(b"\xff\xc3") + 5
    began = time.perf_counter()
    with pytest.raises(LosslessJpegError, match="65535 x 65535"):
        decode_lossless_jpeg(stream[:at] + b"\xff" * 4 + stream[at + 4 :])
    assert time.perf_counter() - began < 1


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LosslessJpegError):
        decode_lossless_jpeg(b"\xff\xd8\xff" + data)
