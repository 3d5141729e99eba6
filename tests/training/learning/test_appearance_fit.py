import numpy as np
import pytest

from training.data.ct_slices import CtSlice
from training.learning.appearance_fit import _weights

GREY = np.zeros((8, 8), np.uint8)


def _slices(source: str, label: int, count: int) -> list[CtSlice]:
    return [CtSlice(source, str(i), str(i), "labelled", GREY, label=label) for i in range(count)]


def test_each_group_has_its_share_and_a_large_source_less_than_its_number() -> None:
    slices = [
        *_slices("covid-ct", 1, 3),
        *_slices("covid-ct", 0, 6),
        *_slices("small", 0, 4),
        *_slices("large", 0, 100),
        *_slices("papers", 1, 5),
    ]
    weights = _weights(slices, {"covid-ct": 0.5, None: 0.2})

    def total(source: str, label: int) -> float:
        return float(
            sum(
                w for w, slice_ in zip(weights, slices, strict=True) if (slice_.source, slice_.label) == (source, label)
            )
        )

    assert total("covid-ct", 0) == pytest.approx(total("covid-ct", 1)) == pytest.approx(0.5)
    assert total("papers", 1) == pytest.approx(0.2)
    assert total("small", 0) + total("large", 0) == pytest.approx(0.2)
    assert total("large", 0) / total("small", 0) == pytest.approx(5)
