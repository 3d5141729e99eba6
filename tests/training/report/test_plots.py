import numpy as np
import pytest

from training.report.fine_tuning import EpochRecord
from training.report.plots import draw_curves


def epoch(number: int, val_loss: float) -> EpochRecord:
    trained = 0.6 if number else None
    return EpochRecord(number, trained, trained, val_loss, val_accuracy=0.5, val_auc=0.5, seconds=1.0)


@pytest.mark.parametrize(("losses", "scale"), [((0.7, 0.6, 0.5), "linear"), ((0.7, 678.0, 0.5), "log")])
def test_a_loss_that_ran_away_does_not_flatten_the_others(losses: tuple[float, ...], scale: str) -> None:
    figure = draw_curves([epoch(number, loss) for number, loss in enumerate(losses)], kept_epoch=0)
    loss, accuracy = figure.axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")
    assert np.asarray(loss.lines[1].get_ydata()).tolist() == list(losses)
