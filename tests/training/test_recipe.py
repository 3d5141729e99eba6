import pytest

from training.errors import TrainingError
from training.recipe import RECIPES, Recipe


def test_seed_is_the_recipe_of_the_report() -> None:
    seed = RECIPES["seed"]
    assert (seed.architecture, seed.head, seed.learning_rate, seed.epochs) == ("vgg19_bn", "classifier", 0.01, 60)
    assert seed.select_by == "accuracy"


def test_a_field_can_be_overridden_by_text_and_the_others_stay() -> None:
    changed = RECIPES["best"].override(learning_rate="1e-3", freeze_batch_norm="false", trainable="last_block")
    assert changed.learning_rate == 1e-3
    assert changed.freeze_batch_norm is False
    assert changed.trainable == "last_block"
    assert changed.probe_penalty == RECIPES["best"].probe_penalty


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", "-1", r"recipe field learning_rate = '-1'.*greater than 0"),
        ("head", "deep", r"recipe field head = 'deep'.*'pooled', 'covariance' or 'classifier'"),
        ("momentum", "0.9", r"recipe field momentum = '0.9'.*not permitted"),
        ("head", "classifier", "probe needs head = pooled"),
        ("epochs", "1", r"fit_on = train\+val is for a probe without epochs"),
        ("probe", "false", r"fit_on = train\+val is for a probe without epochs"),
        ("fit_on", "test", r"recipe field fit_on = 'test'.*'train' or 'train\+val'"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(field: str, value: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        RECIPES["best"].override(**{field: value})


def test_best_may_have_epochs_once_validation_is_left_to_choose_one() -> None:
    assert RECIPES["best"].fit_on == "train+val"
    assert RECIPES["best"].override(fit_on="train", epochs="1").epochs == 1


def test_every_field_says_what_it_means() -> None:
    assert all(field.description for field in Recipe.model_fields.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": "4_2,6_1"}, r"vgg19_bn has no layer 6_1; it has 1_1 1_2 .* 5_4"),
        ({"layers": "5_1,4_2"}, r"in the network's order, each once"),
        ({"layers": "4_2,4_2"}, r"in the network's order, each once"),
        ({"architecture": "vgg16_bn", "layers": "4_4"}, r"vgg16_bn has no layer 4_4"),
        ({"head": "classifier", "probe": False, "fit_on": "train"}, r"layers are for head = pooled"),
        ({"layers": "3_2,5_1", "components": 257}, r"components 257: layer 3_2 has 256 channels"),
    ],
)
def test_layers_that_the_network_does_not_have_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        RECIPES["best"].override(**fields)


def test_without_layers_the_head_sees_the_last_one() -> None:
    assert RECIPES["best"].override(layers="").pooled_layers == ("5_4",)
    assert RECIPES["seed"].override(architecture="vgg16_bn").pooled_layers == ("5_3",)
