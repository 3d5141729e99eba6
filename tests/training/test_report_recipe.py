import pytest

from training.errors import TrainingError
from training.recipe import FIELD_GROUPS, GROUPS, RECIPES, FineTuningSettings, ProbeSettings, Recipe


def test_seed_is_the_recipe_of_the_report() -> None:
    seed = RECIPES["seed"]
    assert seed.probe is None
    assert seed.fine_tuning is not None
    assert (seed.network.architecture, seed.network.head) == ("vgg19_bn", "classifier")
    tuning = seed.fine_tuning
    assert (tuning.optimiser, tuning.learning_rate, tuning.epochs) == ("sgd", 0.01, 60)
    assert (tuning.select_by, tuning.freeze_batch_norm) == ("accuracy", False)


def test_a_field_is_overridden_by_its_name_alone_and_the_others_stay() -> None:
    changed = RECIPES["seed"].override(learning_rate="1e-3", freeze_batch_norm="true", resize="300", seed="7")
    tuning = changed.fine_tuning
    assert tuning is not None
    assert (tuning.learning_rate, tuning.freeze_batch_norm, tuning.batch_size) == (1e-3, True, 16)
    assert (changed.augmentation.resize, changed.seed, changed.network) == (300, 7, RECIPES["seed"].network)


def test_a_group_is_added_with_its_defaults_and_removed() -> None:
    both = RECIPES["best"].override(fit_on="train", fine_tuning="true", epochs="4")
    assert both.fine_tuning == FineTuningSettings(epochs=4)
    assert both.override(fine_tuning="false") == RECIPES["best"].override(fit_on="train")
    assert both.override(probe=False).probe is None
    assert both.override(probe=True).probe == both.probe, "a group that is there stays as it is"


@pytest.mark.parametrize(
    ("recipe", "fields", "message"),
    [
        ("seed", {"learning_rate": "-1"}, r"recipe field fine_tuning\.learning_rate = '-1'.*greater than 0"),
        ("best", {"head": "deep"}, r"recipe field network\.head = 'deep'.*'pooled', 'covariance' or 'classifier'"),
        ("best", {"momentum": "0.9"}, r"recipe field momentum = '0.9'.*not permitted"),
        ("best", {"fit_on": "test"}, r"recipe field probe\.fit_on = 'test'.*'train' or 'train\+val'"),
        ("best", {"probe": "maybe"}, r"recipe field probe = 'maybe': must be true or false"),
        (
            "best",
            {"epochs": "3"},
            r"recipe best has no fine_tuning, so epochs = '3' does nothing; pass --fine-t",
        ),
        ("seed", {"views": "3"}, r"recipe seed has no probe, so views = '3' does nothing; pass --probe true"),
        ("best", {"head": "classifier", "layers": ""}, r"probe needs head = pooled or covariance"),
        ("best", {"fine_tuning": "true"}, r"fit_on = train\+val needs fine_tuning = false"),
        ("best", {"probe": "false"}, r"nothing would be trained"),
        ("best", {"layers": "4_2,6_1"}, r"vgg19_bn has no layer 6_1; it has 1_1 1_2 .* 5_4"),
        ("best", {"layers": "5_1,4_2"}, r"in the network's order, each once"),
        ("best", {"layers": "4_2,4_2"}, r"in the network's order, each once"),
        ("best", {"architecture": "vgg16_bn", "layers": "4_4"}, r"vgg16_bn has no layer 4_4"),
        ("seed", {"layers": "5_1"}, r"layers are for head = pooled or covariance"),
        ("best", {"layers": "3_2,5_1", "components": 257}, r"components 257: layer 3_2 has 256 channels"),
    ],
)
def test_a_wrong_field_is_named_with_the_reason(recipe: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        RECIPES[recipe].override(**fields)


def test_every_field_has_a_description_and_a_name_of_its_own() -> None:
    own = {name: field for name, field in Recipe.model_fields.items() if name not in GROUPS}
    grouped = [(name, field) for model in GROUPS.values() for name, field in model.model_fields.items()]
    assert all(field.description for field in [*own.values(), *(field for _, field in grouped)])
    assert len(FIELD_GROUPS) == len(grouped), "the command line has one option per name"
    assert not FIELD_GROUPS.keys() & Recipe.model_fields.keys()


def test_a_recipe_as_json_reads_back_and_has_no_fields_of_absent_groups() -> None:
    for recipe in RECIPES.values():
        assert Recipe.model_validate(recipe.as_json()) == recipe
    assert RECIPES["best"].as_json()["fine_tuning"] is None
    assert not FineTuningSettings.model_fields.keys() & RECIPES["best"].flat().keys()
    assert ProbeSettings.model_fields.keys() <= RECIPES["best"].flat().keys()


def test_without_layers_the_head_reads_the_last_one() -> None:
    assert RECIPES["best"].override(layers="").network.head_layers == ("5_4",)
    assert RECIPES["seed"].override(architecture="vgg16_bn").network.head_layers == ("5_3",)
