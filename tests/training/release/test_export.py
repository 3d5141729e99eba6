from training.recipe import RECIPES
from training.release.export import architecture_of


def test_the_architecture_names_the_activations_that_the_head_sees_and_what_of_them() -> None:
    best = RECIPES["best"].override(architecture="vgg16_bn", layers="4_2,5_1", components=8)
    covariances = "covariances of 8 directions of activations 4_2, 5_1"
    assert architecture_of(best.network) == f"vgg16_bn ({covariances}, one linear layer)"
    pooled = best.override(head="pooled")
    assert architecture_of(pooled.network) == "vgg16_bn (average and RMS of activations 4_2, 5_1, one linear layer)"
    assert architecture_of(RECIPES["seed"].network) == "vgg19_bn (VGG classifier, two outputs)"
