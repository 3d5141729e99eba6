import torch

from training.data.covid_ct import CovidCt
from training.report.batches import training_batches
from training.report_recipe import ReportRecipe


def test_training_batches_hold_every_slice_once_with_its_label_in_random_order(
    data: CovidCt, recipe: ReportRecipe
) -> None:
    whole = recipe.model_copy(update={"crop_scale_min": 1.0})
    batches = list(training_batches(data.train, whole, 1))
    assert [images.shape for images, _ in batches] == [(8, 1, 32, 32)] * 2
    labels = torch.cat([labels for _, labels in batches])
    assert sorted(labels.tolist()) == sorted(data.train.labels.tolist())
    assert labels.tolist() != data.train.labels.tolist()
    brightness = torch.cat([images.float().mean((1, 2, 3)) for images, _ in batches])
    assert brightness[labels == 1].min() > brightness[labels == 0].max(), "generated COVID slices are brighter"


def test_augmentation_depends_on_seed_and_epoch_and_on_nothing_else(data: CovidCt, recipe: ReportRecipe) -> None:
    def images(recipe: ReportRecipe, epoch: int, workers: int = 0) -> torch.Tensor:
        torch.manual_seed(torch.seed())  # earlier draws must not matter
        return torch.cat([images for images, _ in training_batches(data.train, recipe, epoch, workers=workers)])

    first = images(recipe, 1)
    assert torch.equal(first, images(recipe, 1))
    assert torch.equal(first, images(recipe, 1, workers=1))
    assert not torch.equal(first, images(recipe, 2))
    assert not torch.equal(first, images(recipe.model_copy(update={"seed": 1}), 1))


def test_a_last_batch_of_one_slice_is_dropped_because_batch_norm_needs_two(data: CovidCt, recipe: ReportRecipe) -> None:
    batches = training_batches(data.train, recipe.model_copy(update={"batch_size": 5}), 1)
    assert [len(labels) for _, labels in batches] == [5, 5, 5]
