import numpy as np
import pytest

from training.evaluation.plots import (
    draw_confusion,
    draw_curves,
    draw_precision_recall,
    draw_roc,
    draw_roc_of_answers,
)
from training.evaluation.scores import ConfusionMatrix, score
from training.run.record import EpochRecord


def epoch(number: int, val_loss: float) -> EpochRecord:
    trained = 0.6 if number else None
    return EpochRecord(number, trained, trained, val_loss, val_accuracy=0.5, val_auc=0.5, seconds=1.0)


@pytest.mark.parametrize(("losses", "scale"), [((0.7, 0.6, 0.5), "linear"), ((0.7, 678.0, 0.5), "log")])
def test_a_loss_that_ran_away_does_not_flatten_the_others(losses: tuple[float, ...], scale: str) -> None:
    figure = draw_curves([epoch(number, loss) for number, loss in enumerate(losses)], kept_epoch=0)
    loss, accuracy = figure.axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")
    assert np.asarray(loss.lines[1].get_ydata()).tolist() == list(losses)


def test_the_operating_point_is_named_and_cells_have_rates() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    scores = score(np.array([0.1, 0.2, 0.7, 0.4, 0.3, 0.8, 0.9, 0.95]), labels, 0.6, seed=0)
    (axes,) = draw_roc({"test": scores}).axes
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert "threshold 0.60: sensitivity 0.75, specificity 0.75" in names
    matrix = ConfusionMatrix(true_positives=3, false_positives=1, true_negatives=3, false_negatives=1)
    (cells,) = draw_confusion({"test": matrix}).axes
    assert [text.get_text() for text in cells.texts] == ["3\n75.0%", "1\n25.0%", "1\n25.0%", "3\n75.0%"]


def test_precision_recall_ends_at_the_share_of_covid() -> None:
    labels = np.array([0, 0, 0, 1])
    (axes,) = draw_precision_recall({"test": score(np.array([0.1, 0.2, 0.3, 0.9]), labels, 0.5, seed=0)}).axes
    points = np.asarray(axes.lines[0].get_xydata())
    assert points[0].tolist() == [1.0, 1.0]
    assert points[-1].tolist() == [1.0, 0.25]


def test_roc_curves_of_sources_name_auc_and_operating_point() -> None:
    labels, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.7, 0.6, 0.9])
    figure = draw_roc_of_answers({"left-out hospital": (labels, probability)}, 0.5)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "left-out hospital (n = 4): AUC 0.750; at 0.50 sensitivity 1.00, specificity 0.50"
    ]
    point = figure.axes[0].lines[1]
    assert np.asarray(point.get_data()).tolist() == [[0.5], [1.0]]
