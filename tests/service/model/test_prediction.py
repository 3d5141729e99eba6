import pytest
import torch

from service.errors import InferenceError, ModelFileError
from service.model.card import CheckName
from service.model.prediction import NetworkPrediction, read_outputs

CHECKS: tuple[CheckName, ...] = ("no_lungs",)


def outputs(count: int = 2) -> dict[str, torch.Tensor]:
    """Outputs of a network with lungs and one check; the rows differ."""
    rows = torch.arange(count) / 10
    return {
        "probability": rows,
        "heatmap": rows[:, None, None].expand(count, 3, 5),
        "lungs": 1 - rows[:, None, None].expand(count, 3, 5),
        "lung_involvement": torch.stack([rows, rows + 0.1, rows + 0.2], 1),
        "lung_fraction": rows + 0.3,
        "no_lungs": rows + 0.4,
        "of_no_use_here": rows,
    }


def predictions(values: dict[str, torch.Tensor], count: int = 2) -> list[NetworkPrediction]:
    answers = read_outputs(values, count, CHECKS)
    assert all(isinstance(answer, NetworkPrediction) for answer in answers)
    return [answer for answer in answers if isinstance(answer, NetworkPrediction)]


def test_each_row_becomes_a_prediction_and_padding_none() -> None:
    first, second = predictions(outputs(4))
    assert (first.probability, second.probability) == pytest.approx((0.0, 0.1))
    assert second.lung_involvement is not None
    involvement = second.lung_involvement
    assert (involvement.both, involvement.left, involvement.right) == pytest.approx((0.1, 0.2, 0.3))
    assert second.lung_fraction == pytest.approx(0.4)
    assert second.check_scores == pytest.approx({"no_lungs": 0.5})
    assert second.lungs is not None
    assert second.lungs.shape == second.heatmap.shape == (3, 5)
    assert second.lungs[0, 0] == pytest.approx(0.9)


def test_a_network_without_lungs_leaves_them_none() -> None:
    values = {name: outputs()[name] for name in ("probability", "heatmap")}
    for answer in read_outputs(values, 2, ()):
        assert isinstance(answer, NetworkPrediction)
        assert (answer.lungs, answer.lung_involvement, answer.lung_fraction) == (None, None, None)
        assert answer.check_scores == {}


@pytest.mark.parametrize("name", [name for name in outputs() if name != "of_no_use_here"])
def test_a_row_with_a_value_that_is_no_number_fails_alone(name: str) -> None:
    values = outputs()
    spoilt = values[name].clone()
    spoilt[0] = float("inf")
    first, second = read_outputs(values | {name: spoilt}, 2, CHECKS)
    assert isinstance(first, InferenceError)
    assert first.code == "not_finite"
    assert isinstance(second, NetworkPrediction)


@pytest.mark.parametrize("probability", [-0.01, 1.01])
def test_a_probability_outside_0_to_1_is_none(probability: float) -> None:
    (answer,) = read_outputs(outputs(1) | {"probability": torch.tensor([probability])}, 1, CHECKS)
    assert isinstance(answer, InferenceError)


@pytest.mark.parametrize("name", [name for name in outputs() if name != "of_no_use_here"])
def test_an_output_that_is_missing_is_named(name: str) -> None:
    values = outputs()
    del values[name]
    with pytest.raises(ModelFileError, match=f"no output '{name}'"):
        read_outputs(values, 2, CHECKS)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("probability", (2, 1), "[2, 1]; it must be [N]"),
        ("heatmap", (2, 1, 3, 5), "[2, 1, 3, 5]; it must be [N, any, any]"),
        ("lung_involvement", (2, 2), "[2, 2]; it must be [N, 3]"),
        ("no_lungs", (2, 1), "[2, 1]; it must be [N]"),
    ],
)
def test_an_output_of_another_shape_is_named(name: str, shape: tuple[int, ...], wanted: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        read_outputs(outputs() | {name: torch.zeros(shape)}, 2, CHECKS)
    assert f"{name!r} has the shape {wanted}" in str(caught.value)
