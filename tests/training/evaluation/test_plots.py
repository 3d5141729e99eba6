import numpy as np

from training.evaluation.plots import draw_confusion, draw_roc
from training.evaluation.scores import score


def test_curves_name_auc_and_operating_point_and_cells_have_rates() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    scores = score(np.array([0.1, 0.2, 0.7, 0.4, 0.3, 0.8, 0.9, 0.95]), labels, 0.6, seed=0)
    figure = draw_roc({"left-out hospital": scores})
    (text,) = figure.legends[0].get_texts()
    assert text.get_text().startswith("left-out hospital (n = 8): AUC 0.875 (")
    assert text.get_text().endswith("; at 0.60 sensitivity 0.75, specificity 0.75")
    assert np.asarray(figure.axes[0].lines[1].get_data()).tolist() == [[0.25], [0.75]]
    (cells,) = draw_confusion({"test": scores}).axes
    assert [text.get_text() for text in cells.texts] == ["3\n75.0%", "1\n25.0%", "1\n25.0%", "3\n75.0%"]
