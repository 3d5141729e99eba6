"""Answers of the shipped model with all threads, as for a slice alone, and with one, as under load."""

import pytest
from PIL import Image

from service.imaging.decode import decode, to_input
from service.model.card import Precision
from service.model.loading import LoadOptions, load_predictor
from service.model.prediction import NetworkPrediction
from tests.support.files.lying_files import encoded
from tests.support.processes.server import ROOT

BOUNDS: dict[Precision, float] = {"fp32": 1e-6, "bf16": 0.001, "int8": 0.01}
"""As docs/reference.md states."""


@pytest.mark.parametrize("precision", BOUNDS)
def test_a_slice_has_the_same_probability_alone_and_under_load(precision: Precision) -> None:
    with Image.open(ROOT / "examples" / "slice.png") as picture:
        turned = [encoded(picture.convert("L").rotate(degrees), "PNG") for degrees in (0, 3, 5, -4)]
    predictor = load_predictor(LoadOptions(ROOT / "models", device="cpu", precision=precision, threads=4))
    try:
        for data in turned:
            slices = [to_input(decode(data), predictor.card.input_size)]
            (alone,), (shared,) = predictor.predict_now(slices, 1), predictor.predict_now(slices, 4)
            assert isinstance(alone, NetworkPrediction)
            assert isinstance(shared, NetworkPrediction)
            assert shared.probability == pytest.approx(alone.probability, abs=BOUNDS[precision])
    finally:
        predictor.close()
