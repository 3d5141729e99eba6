from training.config import RECIPES
from training.export import architecture_of


def test_the_architecture_names_the_activations_that_the_head_sees() -> None:
    best = RECIPES["best"].override(architecture="vgg16_bn", layers="4_2,5_1")
    assert architecture_of(best) == "vgg16_bn (average and RMS of activations 4_2, 5_1, one linear layer)"
    assert architecture_of(RECIPES["seed"]) == "vgg19_bn (VGG classifier, two outputs)"
