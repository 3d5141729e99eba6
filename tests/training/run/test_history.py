from pathlib import Path

from training.run.history import append_row, write_history


def test_steps_after_a_kill_replace_those_from_before_it(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    for step, loss in ((100, 0.7), (200, 0.6), (300, 0.5), (200, 0.65)):
        append_row(path, {"step": step, "loss": loss})
    assert path.read_text().splitlines() == ["step,loss", "100,0.7", "200,0.65"]


def test_a_figure_that_is_not_known_is_an_empty_cell(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [{"epoch": 0, "train_loss": None}, {"epoch": 1, "train_loss": 0.5}])
    assert (tmp_path / "history.csv").read_text() == "epoch,train_loss\n0,\n1,0.5\n"
