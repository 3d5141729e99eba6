import numpy as np
import torch

from service.imaging.decode import decode, to_input
from tests.support.covid_ct import small_files, small_lists
from training.data.batches import plain_batches, training_batches
from training.data.covid_ct import CovidCt
from training.recipe import Recipe


def test_plain_batches_hold_exactly_what_the_service_would_feed(data: CovidCt, recipe: Recipe) -> None:
    (batch,) = plain_batches(data.test, recipe.input_size)
    assert batch.images.shape == (8, 1, recipe.input_size, recipe.input_size)
    assert batch.images.dtype == torch.uint8
    assert batch.paths == [scan.path for scan in data.test.scans]
    at = batch.paths.index("CT_COVID/covid-test%0.png")
    assert batch.labels[at] == 1
    files = small_files(small_lists({"train": 8, "val": 4, "test": 4}))
    expected = to_input(decode(files["COVID"]["covid-test%0.png"]), recipe.input_size)
    np.testing.assert_array_equal(batch.images[at].numpy(), expected)


def test_training_batches_hold_images_labels_and_paths(data: CovidCt, recipe: Recipe) -> None:
    batches = list(training_batches(data.train, recipe, epoch=1))
    assert [len(batch.labels) for batch in batches] == [8, 8]
    assert batches[0].images.shape == (8, 1, recipe.input_size, recipe.input_size)
    labels = {scan.path: scan.label for scan in data.train.scans}
    seen = [path for batch in batches for path in batch.paths]
    assert sorted(seen) == sorted(labels)
    assert seen != list(labels), "the order is shuffled"
    for batch in batches:
        assert batch.labels.tolist() == [labels[path] for path in batch.paths]


def test_augmentation_depends_on_seed_and_epoch_and_on_nothing_else(data: CovidCt, recipe: Recipe) -> None:
    def images(recipe: Recipe, epoch: int, workers: int = 0) -> torch.Tensor:
        torch.manual_seed(torch.seed())  # what was drawn before must not matter
        return torch.cat([batch.images for batch in training_batches(data.train, recipe, epoch, workers=workers)])

    first = images(recipe, 1)
    assert torch.equal(first, images(recipe, 1))
    assert torch.equal(first, images(recipe, 1, workers=1))
    assert not torch.equal(first, images(recipe, 2))
    assert not torch.equal(first, images(recipe.override(seed=1), 1))


def test_compression_leaves_what_is_seen_and_changes_the_grain(data: CovidCt, recipe: Recipe) -> None:
    whole = recipe.override(crop_scale_min=1.0)
    plain, compressed = (
        torch.cat(
            [batch.images.float() for batch in training_batches(data.train, changed, -1, workers=0, shuffle=False)]
        )
        for changed in (whole.override(jpeg_probability=0.0), whole.override(jpeg_probability=1.0))
    )
    brightness = [images.mean((1, 2, 3)) for images in (plain, compressed)]
    torch.testing.assert_close(*brightness, rtol=0.25, atol=0)
    assert not torch.equal(plain, compressed)


def test_a_last_batch_of_one_slice_is_dropped_because_batch_norm_can_not_learn_from_it(
    data: CovidCt, recipe: Recipe
) -> None:
    batches = training_batches(data.train, recipe.override(batch_size=5), epoch=1)
    assert [len(batch.labels) for batch in batches] == [5, 5, 5]
