from pathlib import Path

import numpy as np

from tests.support.processes.parallel import BOX_SIZE, perfect_lungs, read_slices
from training.learning.lesion_samples import TrainingSet
from training.lesion_recipe import LesionRecipe
from training.release.lesion_plots import draw_losses, draw_samples
from training.run.loss_table import append_losses


def test_losses_are_drawn_by_step_one_panel_a_network(tmp_path: Path) -> None:
    paths = {"lung finder": tmp_path / "finder.csv", "on all slices": tmp_path / "network.csv"}
    for path in paths.values():
        for step in (10, 20, 30):
            append_losses(path, {"step": step, "lesion": 1 / step, "label": 2 / step, "seconds": step})
    figure = draw_losses({**paths, "of an older run": tmp_path / "gone.csv"})
    assert [axes.get_title() for axes in figure.axes] == list(paths)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert lines.keys() == {"lesion", "label"}
    assert np.asarray(lines["lesion"].get_xdata()).tolist() == [10, 20, 30]


def test_samples_show_what_training_sees_and_that_they_must_not_be_published(tmp_path: Path) -> None:
    slices = read_slices(tmp_path)
    seen = TrainingSet(slices, perfect_lungs(len(slices)), {"hospital": 1.0, None: 0.0})
    figure = draw_samples(LesionRecipe(box_height=BOX_SIZE[0], box_width=BOX_SIZE[1]), seen)
    assert "Not for publishing" in figure.get_suptitle()
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(pictures) == 16
    assert {picture.shape for picture in pictures} == {BOX_SIZE}
    assert any(axes.collections for axes in figure.axes), "outlines of masks"
