import threading
import time

import pytest

from training.run.progress import map_in_threads, progress, say


def test_results_are_in_the_order_of_the_items_whatever_call_ends_first() -> None:
    last_is_done = threading.Event()

    def call(item: int) -> int:
        if item == 3:
            last_is_done.set()
        elif item == 0:
            assert last_is_done.wait(10)
        return 10 * item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.run.progress.usable_processors", lambda: 2)
        assert map_in_threads(call, range(4), "calling", "item") == [0, 10, 20, 30]


def test_a_log_file_gets_the_right_counts_whatever_is_said_in_between(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.run.progress._SECONDS_BETWEEN_LINES", 0.0)
    for step in progress(range(3), "training", "step"):
        say(f"at {step}")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("at")] == ["at 0", "at 1", "at 2"]
    counts = [line.partition(" steps")[0] for line in lines if line.startswith("training")]
    assert counts == ["training: 1 of 3", "training: 2 of 3", "training: 3 of 3"]


@pytest.mark.parametrize(("seconds", "shown"), [(0.004, "0.004 s"), (2, "2 s"), (104, "104 s")])
def test_the_time_of_a_step_is_readable_however_long_it_is(
    seconds: float, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, seconds])
    monkeypatch.setattr("training.run.progress.time.monotonic", lambda: next(times))
    monkeypatch.setattr("training.run.progress._SECONDS_BETWEEN_LINES", 0.0)
    list(progress([1], "evaluating", "batch"))
    assert f"evaluating: 1 of 1 batches, {shown} each, 0 min left" in capsys.readouterr().err


def test_work_of_hours_says_so_after_twenty_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 10_000, 9))
    monkeypatch.setattr("training.run.progress.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("training.run.progress._SECONDS_BETWEEN_LINES", 1e9)
    steps = iter(progress(range(1300), "training", "step"))
    for _ in range(20):
        next(steps)
    assert capsys.readouterr().err == ""
    next(steps)
    assert capsys.readouterr().err.startswith("training: 1300 steps will take about 3 h 15 min; after Ctrl-C, ")


def test_the_first_error_in_the_order_of_the_items_is_raised_and_the_rest_is_dropped() -> None:
    begun = []

    def call(item: int) -> int:
        begun.append(item)
        if item in (2, 3):
            raise ValueError(str(item))
        if item > 3:
            time.sleep(0.05)  # so that not all of them can begin before the error is seen
        return item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.run.progress.usable_processors", lambda: 1)
        with pytest.raises(ValueError, match="2"):
            map_in_threads(call, range(1000), "calling", "item")
    assert len(begun) < 1000
