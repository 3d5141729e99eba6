import pytest

from training.config import RECIPES, Recipe
from training.errors import TrainingError


def test_seed_is_the_recipe_of_the_report() -> None:
    seed = RECIPES["seed"]
    assert (seed.architecture, seed.head, seed.learning_rate, seed.epochs) == ("vgg19_bn", "classifier", 0.01, 60)
    assert seed.select_by == "accuracy"


def test_a_field_can_be_overridden_by_text_and_the_others_stay() -> None:
    changed = RECIPES["best"].override(learning_rate="1e-3", freeze_batch_norm="false", trainable="last_block")
    assert changed.learning_rate == 1e-3
    assert changed.freeze_batch_norm is False
    assert changed.trainable == "last_block"
    assert changed.probe_strength == RECIPES["best"].probe_strength


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", "-1", r"recipe field learning_rate = '-1'.*greater than 0"),
        ("head", "deep", r"recipe field head = 'deep'.*'pooled' or 'classifier'"),
        ("momentum", "0.9", r"recipe field momentum = '0.9'.*not permitted"),
        ("head", "classifier", "probe needs head = pooled"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(field: str, value: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        RECIPES["best"].override(**{field: value})


def test_every_field_says_what_it_means() -> None:
    assert all(field.description for field in Recipe.model_fields.values())
