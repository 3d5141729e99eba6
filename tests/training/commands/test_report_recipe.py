import argparse

import pytest

from training.commands.options import add_recipe_fields, read_recipe
from training.errors import TrainingError
from training.lesion_recipe import LesionRecipe
from training.report_recipe import ReportRecipe

NO_OPTIONS = ("name", "architecture", "seed")


def parse(*arguments: str) -> ReportRecipe:
    parser = argparse.ArgumentParser()
    add_recipe_fields(parser, ReportRecipe, NO_OPTIONS)
    return read_recipe(parser.parse_args(arguments), ReportRecipe, NO_OPTIONS)


def test_the_recipe_is_that_of_the_report() -> None:
    recipe = ReportRecipe()
    assert (recipe.architecture, recipe.learning_rate, recipe.epochs) == ("vgg19_bn", 0.01, 60)
    assert parse() == recipe


def test_a_field_is_overridden_by_its_option_and_the_others_stay() -> None:
    changed = parse("--learning-rate", "1e-3", "--batch-size", "8")
    assert changed == ReportRecipe(learning_rate=0.001, batch_size=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learning-rate", "-1"), r"--learning-rate -1: Input should be greater than 0"),
        (("--epochs", "many"), r"--epochs many: Input should be a valid integer"),
        (("--crop-scale-min", "2"), r"--crop-scale-min 2: Input should be less than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("recipe", [ReportRecipe, LesionRecipe])
def test_every_field_that_is_an_option_has_a_description(recipe: type[ReportRecipe | LesionRecipe]) -> None:
    fields = {name: field for name, field in recipe.model_fields.items() if name not in ("name", "architecture")}
    assert all(field.description for field in fields.values())
