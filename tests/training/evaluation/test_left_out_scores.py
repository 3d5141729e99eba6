import numpy as np
import pytest

from tests.support.sources.lesion_sources import draw_chest
from training.data.ct_slices import CtSlice
from training.errors import TrainingError
from training.evaluation.calibration import calibrated, fit_calibrations
from training.evaluation.left_out_scores import judge_left_out
from training.evaluation.lesion_scores import to_grid
from training.evaluation.predictions import Predictions


def _slices(count: int = 30) -> list[CtSlice]:
    """Two hospitals with healthy people and two diseases, and two volumes with drawn lesions."""
    grey, lung, lesion = draw_chest(0, lesion=True, size=320)
    slices = []
    for i in range(count):
        for hospital in ("north", "south"):
            name = f"{hospital}-{i}"
            slices += [
                CtSlice(hospital, f"{name}-a", name, "labelled", grey, label=1),
                CtSlice(hospital, f"{name}-b", f"{name}b", "labelled", grey, label=0, finding="healthy"),
                CtSlice(hospital, f"{name}-c", f"{name}c", "labelled", grey, label=0, finding="other disease"),
            ]
        drawn = lesion if i % 2 else np.zeros_like(lesion)
        slices.append(CtSlice("drawn", f"{i}", str(i), "lesions", grey, lesion=drawn, lung=lung))
    return slices


def _predictions(slices: list[CtSlice], seed: int = 0) -> Predictions:
    """Fairly good predictions; log odds of lesion are 2 too high, and twice as large as they should be."""
    rng = np.random.default_rng(seed)
    sick = np.array([s.finding != "healthy" and (s.lesion is None or s.lesion.any()) for s in slices])
    covid = np.array([bool(slice_.label) for slice_ in slices])
    lesion_odds = 2 * (rng.normal(0, 1.5, len(slices)) + np.where(sick, 2, -2)) + 2
    covid_odds = rng.normal(0, 1, len(slices)) + np.where(covid, 1, -1)
    _, lung, lesion = draw_chest(0, lesion=True, size=320)
    maps = np.stack([to_grid(lesion, 80) if is_sick else np.zeros((80, 80)) for is_sick in sick]).astype(np.float16)
    lungs = np.repeat(to_grid(lung, 80)[None].astype(np.float16), len(slices), axis=0)
    return Predictions(
        lesion_probability=(1 / (1 + np.exp(-lesion_odds))).astype(np.float32),
        covid_given_lesion=(1 / (1 + np.exp(-covid_odds))).astype(np.float32),
        involvement=np.zeros((len(slices), 3), np.float32),
        heatmap=maps,
        lungs=lungs,
        found_lungs=lungs,
    )


def test_the_lesion_probability_is_calibrated_on_slices_with_known_lesions() -> None:
    slices = _slices(60)
    predictions = _predictions(slices)
    calibrations, trials = fit_calibrations(predictions, slices)
    assert 0.2 < calibrations["lesion_probability"].slope < 1.2
    assert calibrations["lesion_probability"].offset < 0
    assert trials["covid_given_lesion"].keys() == {"none", "temperature", "platt"}
    healthy = [slice_.finding == "healthy" for slice_ in slices]
    mean_before = predictions.probability[healthy].mean()
    assert calibrated(predictions, calibrations).probability[healthy].mean() < mean_before


def test_each_purpose_has_its_threshold_with_rates_by_source_and_negatives() -> None:
    slices = _slices()
    judgement = judge_left_out(_predictions(slices), slices, seed=0)
    differential, triage = (judgement.operating_points[name] for name in ("differential", "triage"))
    assert differential.lesion_threshold == triage.threshold == 0
    assert "drawn" in triage.rule
    assert "drawn" not in differential.rule
    assert triage.sources.keys() == differential.sources.keys() == {"north", "south"}
    healthy, other = (triage.sources["north"][name] for name in ("healthy", "other disease"))
    assert healthy.specificity.value > 0.8
    assert other.specificity.value < 0.4, "lesions of another disease are lesions"
    assert differential.sources["north"]["other disease"].specificity.value > 0.6
    alone = judgement.sources["north"].answers
    assert alone["healthy"]["lesion_probability"] > alone["other disease"]["lesion_probability"] + 0.2
    assert alone["other disease"]["covid_given_lesion"] > 0.8
    assert judgement.clear.keys() == {"drawn", "north", "south"}
    assert judgement.clear["north"].count == 30
    assert judgement.threshold == differential.threshold


def test_without_a_left_out_source_with_both_classes_nothing_is_judged() -> None:
    slices = [slice_ for slice_ in _slices() if slice_.label != 1]
    with pytest.raises(TrainingError, match="no left-out source has slices of both classes"):
        judge_left_out(_predictions(slices), slices, seed=0)


def test_nested_rates_use_a_threshold_that_the_source_did_not_choose() -> None:
    slices = _slices()
    predictions = _predictions(slices)
    south = np.array([slice_.source == "south" for slice_ in slices])
    # the south's probabilities are far lower, so its own threshold would be too
    predictions.covid_given_lesion[south] *= 0.2
    judgement = judge_left_out(predictions, slices, seed=0)
    nested = judgement.sources["south"].nested
    assert nested is not None
    north = judgement.sources["north"].nested
    assert north is not None
    assert nested.threshold > judgement.threshold >= north.threshold
    assert nested.rates.sensitivity.value < judgement.sources["south"].figures["sensitivity"].value
