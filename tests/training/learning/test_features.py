from unittest.mock import Mock

import pytest
import torch

from training.learning.features import FeatureCache

WEIGHTS = [torch.arange(6.0).view(2, 3)]
IMAGES = [torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.ones(1, 1, 4, 4, dtype=torch.uint8)]


def test_the_same_features_are_computed_once() -> None:
    cache, compute = FeatureCache(), Mock(return_value=torch.rand(3, 2))
    first = cache.rows(WEIGHTS, IMAGES, "fp32", compute)
    again = cache.rows([each.clone() for each in WEIGHTS], [each.clone() for each in IMAGES], "fp32", compute)
    compute.assert_called_once()
    assert again is first


@pytest.mark.parametrize(
    ("weights", "images", "precision"),
    [
        ([WEIGHTS[0] + 1e-6], IMAGES, "fp32"),
        ([WEIGHTS[0].view(3, 2)], IMAGES, "fp32"),
        (WEIGHTS, IMAGES[::-1], "fp32"),
        (WEIGHTS, IMAGES[:1], "fp32"),
        (WEIGHTS, IMAGES, "bf16"),
    ],
    ids=["weights", "shape", "order", "fewer", "precision"],
)
def test_whatever_they_depend_on_has_features_of_its_own(
    weights: list[torch.Tensor], images: list[torch.Tensor], precision: str
) -> None:
    cache = FeatureCache()
    cache.rows(WEIGHTS, IMAGES, "fp32", lambda: torch.zeros(3, 2))
    other = torch.ones(3, 2)
    assert cache.rows(weights, images, precision, lambda: other) is other
