import pytest

from service.model import speed
from service.model.card import Precision
from service.model.speed import measure_precisions


@pytest.fixture(autouse=True)
def _measured_anew() -> None:
    measure_precisions.cache_clear()


def test_every_precision_of_a_cpu_gets_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    precisions: tuple[Precision, ...] = ("int8", "bf16", "fp32")
    milliseconds = measure_precisions(precisions)
    assert list(milliseconds) == list(precisions)
    assert all(each > 0 for each in milliseconds.values())
    assert capfd.readouterr().err == "", "torch's warnings are for its users, not for operators"


def test_a_process_measures_once() -> None:
    assert measure_precisions(("bf16", "fp32")) is measure_precisions(("bf16", "fp32"))


def test_a_slow_processor_measures_each_precision_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(speed, "_layer", lambda precision: lambda: calls.append(precision))
    monkeypatch.setattr(speed, "_MOST_SECONDS", 0.0)
    measure_precisions(("int8", "fp32"))
    assert calls == ["int8", "fp32"] * 2, "the first run compiles"
    measure_precisions.cache_clear()
    calls.clear()
    monkeypatch.setattr(speed, "_MOST_SECONDS", 60.0)
    measure_precisions(("int8", "fp32"))
    assert len(calls) > 4
