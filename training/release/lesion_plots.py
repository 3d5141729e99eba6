"""Plots of a run of the recipe `lesion`; none shows an image."""

import numpy as np
from matplotlib.figure import Figure

from training.evaluation.calibration import reliability
from training.evaluation.plots import draw_scores
from training.release.lesion_report import LesionReport
from training.release.predictions_csv import AnsweredSet


def draw_plots(report: LesionReport, left_out: AnsweredSet, test: AnsweredSet) -> dict[str, Figure]:
    """Draw every plot of a run, by name.

    Args:
        report: of the run.
        left_out: the slices that were left out of training; only those of sources with scores are drawn.
        test: official test.
    """
    tenths = {}
    for source in report.judgement.sources:
        own = [i for i, each in enumerate(left_out.slices) if each.source == source and each.label is not None]
        labels = np.array([left_out.slices[i].label for i in own])
        tenths[f"left-out {source}"] = reliability(left_out.answers.probability[own], labels)
    labels = np.array([each.label for each in test.slices])
    tenths["test"] = reliability(test.answers.probability, labels)
    return draw_scores(report.splits, tenths, labels, test.answers.probability, report.judgement.threshold)
