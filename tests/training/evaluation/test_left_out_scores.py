import numpy as np

from training.evaluation.calibration import PlattCalibration, SourceAnswers
from training.evaluation.left_out_scores import (
    choose_balanced_threshold,
    choose_screening_threshold,
    score_source,
)

AS_IT_IS = PlattCalibration(slope=1.0, offset=0.0, rule="none")


def _source(shift: float, count: int = 400, seed: int = 0) -> SourceAnswers:
    """Answers whose log odds are right by construction, then shifted."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(0, 2, count)
    labels = (generator.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    groups = np.array([str(i // 4) for i in range(count)])
    return SourceAnswers(odds + shift, labels, groups)


def test_the_balanced_threshold_separates_what_can_be_separated() -> None:
    odds = np.array([-3.0, -2.0, 1.0, 2.0])
    source = SourceAnswers(odds, np.array([0, 0, 1, 1]), np.array(list("abcd")))
    threshold = choose_balanced_threshold({"a": source}, AS_IT_IS)
    scores = score_source(source, AS_IT_IS, threshold, seed=0)
    assert scores.figures["sensitivity"].value == scores.figures["specificity"].value == 1.0
    assert 0.12 < threshold < 0.73


def test_of_thresholds_that_are_nearly_as_good_the_one_nearest_to_one_half_is_taken() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    groups = np.array([str(i) for i in range(400)])

    def chosen(middle: float) -> float:
        odds = generator.normal(0, 0.1, 400) + middle + np.where(labels == 1, 0.8, -0.8)
        return choose_balanced_threshold({"a": SourceAnswers(odds, labels, groups)}, AS_IT_IS)

    assert chosen(0.3) == 0.5
    assert chosen(1.5) > 0.6


def test_screening_reaches_its_sensitivity_and_no_lower_threshold_is_taken() -> None:
    source = _source(0.0)
    threshold = choose_screening_threshold({"a": source}, AS_IT_IS)
    assert score_source(source, AS_IT_IS, threshold, 0).figures["sensitivity"].value >= 0.90
    assert score_source(source, AS_IT_IS, threshold + 0.02, 0).figures["sensitivity"].value < 0.93


def test_intervals_widen_where_slices_of_a_patient_are_alike() -> None:
    source = _source(0.0)
    odds, labels, groups = source.log_odds[:50], source.labels[:50], source.groups[:50]
    repeated = SourceAnswers(np.repeat(odds, 8), np.repeat(labels, 8), np.repeat(groups, 8))
    alone = SourceAnswers(repeated.log_odds, repeated.labels, np.array([str(i) for i in range(400)]))
    by_patient = score_source(repeated, AS_IT_IS, 0.5, 0).figures["auc"]
    by_slice = score_source(alone, AS_IT_IS, 0.5, 0).figures["auc"]
    assert by_patient.value == by_slice.value
    assert by_patient.high - by_patient.low > 1.5 * (by_slice.high - by_slice.low)
