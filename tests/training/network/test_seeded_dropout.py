import pytest
import torch
from torch import nn

from training.network.seeded_dropout import seeded_dropout


def test_the_mask_of_a_slice_depends_on_its_seed_alone() -> None:
    layer, values, before = nn.Dropout(0.3), torch.ones(3, 400), torch.get_rng_state()
    with seeded_dropout(layer, [5, 6, 7]):
        whole = layer(values)
    assert torch.equal(torch.get_rng_state(), before), "no other mask is drawn"
    with seeded_dropout(layer, [6]):
        assert torch.equal(layer(values[1:2]), whole[1:2])
    assert whole.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert whole.mean().item() == pytest.approx(1.0, abs=0.1)
    assert not layer(values).eq(whole).all()
