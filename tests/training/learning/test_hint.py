import pytest
import torch

from training.learning.hint import HintedNetwork
from training.network.lesion_network import LesionNetwork

pytestmark = pytest.mark.usefixtures("thin")


def _pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 64, 96, generator=torch.Generator().manual_seed(0))


def _hinted(frozen: int = 14) -> HintedNetwork:
    torch.manual_seed(0)
    return HintedNetwork(LesionNetwork(), frozen)


@pytest.mark.parametrize("frozen", [1, 14, 39, 40])
def test_a_network_that_is_still_imagenets_makes_no_error(frozen: int) -> None:
    hinted = _hinted(frozen)
    pictures = _pictures(2)
    outputs, errors = hinted(pictures, torch.tensor([False, True]))
    assert errors.shape == (1,)
    assert errors.item() == pytest.approx(0, abs=1e-6)
    for output, wanted in zip(outputs, hinted.network(pictures), strict=True):
        assert torch.allclose(output, wanted, atol=1e-5)


def test_an_error_reaches_every_layer_before_the_hint_that_is_not_frozen() -> None:
    hinted = _hinted()
    layers = [list(layer.parameters()) for layer in hinted.network.features]
    with torch.no_grad():
        layers[37][0].add_(1.0)  # scale of the batch norm of 4_4
    _, errors = hinted(_pictures(2), torch.ones(2, dtype=torch.bool))
    errors.sum().backward()
    assert errors.min() > 0
    first, last_frozen = layers[14][0].grad, layers[11][0].grad
    assert first is not None
    assert first.abs().sum() > 0
    assert last_frozen is None
    assert all(value.grad is None for value in hinted.teacher.parameters())
    assert not any("teacher" in name for name in hinted.trainable())


def test_a_batch_without_hints_has_none() -> None:
    _, errors = _hinted()(_pictures(1), torch.tensor([False]))
    assert errors.shape == (0,)
    assert errors.sum().item() == 0
