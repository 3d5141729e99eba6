import pytest
import torch

from training.network.heads import CovarianceHead, PooledHead, pool


def test_the_heatmap_of_the_pooled_head_adds_up_to_the_logit_margin() -> None:
    torch.manual_seed(2)
    head, maps = PooledHead([256, 512]), [torch.rand(3, 256, 10, 8), torch.rand(3, 512, 5, 4)]
    logits = head(maps)
    bias = head.linear.bias[1] - head.linear.bias[0]
    torch.testing.assert_close(head.heatmap(maps).mean((1, 2)) + bias, logits[:, 1] - logits[:, 0])


@pytest.fixture
def covariances() -> CovarianceHead:
    torch.manual_seed(2)
    return CovarianceHead([16, 24], components=6)


@pytest.fixture
def two_maps() -> list[torch.Tensor]:
    torch.manual_seed(5)
    return [torch.rand(3, 16, 10, 8), torch.rand(3, 24, 5, 4)]


def test_the_heatmap_of_the_covariance_head_adds_up_to_the_logit_margin(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    logits = covariances(two_maps)
    bias = covariances.linear.bias[1] - covariances.linear.bias[0]
    heatmap = covariances.heatmap(two_maps)
    assert heatmap.shape == (3, 10, 8)
    torch.testing.assert_close(heatmap.mean((1, 2)) + bias, logits[:, 1] - logits[:, 0])


def test_the_covariance_head_knows_what_occurs_together_not_where_nor_how_bright(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    before = covariances.pooled(two_maps)
    torch.testing.assert_close(covariances.pooled([each.flip(3) for each in two_maps]), before)
    torch.testing.assert_close(covariances.pooled([each + 5 for each in two_maps]), before, rtol=1e-3, atol=1e-4)
    apart = two_maps[0].clone()
    apart[:, ::2] = apart[:, ::2].flip(2)  # the same values in every channel, at other places in half of them
    assert (covariances.pooled([apart, two_maps[1]]) - before).abs().max() > 0.01


def test_covariances_are_those_of_the_directions_over_the_roots_of_their_deviations(
    covariances: CovarianceHead, two_maps: list[torch.Tensor]
) -> None:
    along = torch.einsum("nchw,ck->nkhw", two_maps[1], covariances.directions[16:]).flatten(2)[0]
    expected = torch.cov(along, correction=0)
    deviations = expected.diag().sqrt()
    expected = expected / torch.outer(deviations, deviations).sqrt()
    expected = expected / expected.norm()
    upper = expected[*torch.triu_indices(6, 6)]
    torch.testing.assert_close(covariances.pooled(two_maps)[0, 21:], upper)


def test_directions_are_the_ones_along_which_the_maps_vary_most(covariances: CovarianceHead) -> None:
    generator = torch.Generator().manual_seed(6)
    spread = torch.arange(1, 17) ** 2  # channel 15 varies most
    maps = [
        3 + spread[:, None, None] * torch.randn(2, 16, 30, 30, generator=generator),
        torch.rand(2, 24, 5, 4, generator=generator),
    ]
    covariances.fit_directions(maps)
    assert covariances.directions[:16].abs().argmax(0).tolist() == [15, 14, 13, 12, 11, 10]
    own = covariances.directions[16:]
    torch.testing.assert_close(own.T @ own, torch.eye(6), rtol=0, atol=1e-4)


def test_covariances_survive_a_dead_channel(covariances: CovarianceHead) -> None:
    maps = [torch.zeros(1, 16, 4, 4, requires_grad=True), torch.zeros(1, 24, 2, 2)]
    covariances.pooled(maps).sum().backward()  # type: ignore[no-untyped-call]
    assert maps[0].grad is not None
    assert maps[0].grad.isfinite().all()


def test_pooling_survives_a_dead_channel() -> None:
    maps = torch.zeros(1, 512, 2, 2, requires_grad=True)
    pool([maps]).sum().backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
