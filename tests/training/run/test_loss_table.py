from pathlib import Path

import pytest

from training.run.loss_table import append_losses, has_row, training_seconds


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (20, 20), (130, 65), (1000, 50), (100_000, 1000)])
def test_a_short_run_has_enough_rows_to_see_its_losses_fall(steps: int, rows: int) -> None:
    kept = [step for step in range(1, steps + 1) if has_row(step, steps)]
    assert len(kept) == rows
    assert kept[-1] == steps


def test_steps_after_a_kill_replace_those_from_before_it(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    for step, loss in ((100, 0.7), (200, 0.6), (300, 0.5), (200, 0.65)):
        append_losses(path, {"step": step, "loss": loss})
    assert path.read_text().splitlines() == ["step,loss", "100,0.7", "200,0.65"]


def test_the_time_of_a_training_is_that_of_its_last_row_so_far(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    assert training_seconds(path) == 0
    for step in (1, 2, 3):
        append_losses(path, {"step": step, "seconds": 10 * step})
    assert (training_seconds(path), training_seconds(path, 2), training_seconds(path, 0)) == (30, 20, 0)
