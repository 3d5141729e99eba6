from unittest.mock import Mock

import pytest
import torch

from training.learning.features import FeatureCache

WEIGHTS = [torch.arange(6.0).view(2, 3)]
IMAGES = torch.arange(3 * 16).view(3, 1, 4, 4).to(torch.uint8)


def test_the_same_features_are_computed_once() -> None:
    cache, compute = FeatureCache(), Mock(return_value=torch.rand(3, 2))
    first = cache.rows(WEIGHTS, IMAGES, "fp32", compute)
    again = cache.rows([each.clone() for each in WEIGHTS], IMAGES.clone(), "fp32", compute)
    compute.assert_called_once()
    assert again is first


@pytest.mark.parametrize(
    ("weights", "images", "precision"),
    [
        ([WEIGHTS[0] + 1e-6], IMAGES, "fp32"),
        ([WEIGHTS[0].view(3, 2)], IMAGES, "fp32"),
        (WEIGHTS, IMAGES.flip(0), "fp32"),
        (WEIGHTS, IMAGES[:2], "fp32"),
        (WEIGHTS, IMAGES, "bf16"),
    ],
    ids=["weights", "shape", "order", "fewer", "precision"],
)
def test_a_change_of_anything_that_features_depend_on_computes_them_again(
    weights: list[torch.Tensor], images: torch.Tensor, precision: str
) -> None:
    cache = FeatureCache()
    cache.rows(WEIGHTS, IMAGES, "fp32", lambda: torch.zeros(3, 2))
    other = torch.ones(3, 2)
    assert cache.rows(weights, images, precision, lambda: other) is other
