import pytest

from service.model.card import Precision
from service.model.speed import measure_precisions


@pytest.fixture(autouse=True)
def _measured_anew() -> None:
    measure_precisions.cache_clear()


def test_every_precision_of_a_cpu_gets_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    precisions: tuple[Precision, ...] = ("int8", "bf16", "fp32")
    milliseconds = measure_precisions(precisions)
    assert list(milliseconds) == list(precisions)
    assert all(time > 0 for time in milliseconds.values())
    assert capfd.readouterr().err == "", "torch's warnings are for its users, not for operators"
