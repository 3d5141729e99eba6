import numpy as np
import torch

from service.imaging.decode import decode, to_input
from tests.support.covid_ct import small_files, small_lists
from training.data.batches import augmented_inputs, in_batches, plain_inputs, training_batches
from training.data.covid_ct import CovidCt
from training.recipe import Recipe


def test_plain_inputs_are_exactly_those_of_the_service(data: CovidCt, recipe: Recipe) -> None:
    size = recipe.network.input_size
    images = plain_inputs(data.test, size)
    assert (images.shape, images.dtype) == ((8, 1, size, size), torch.uint8)
    at = [each.path for each in data.test.slices].index("CT_COVID/covid-test%0.png")
    files = small_files(small_lists({"train": 8, "val": 4, "test": 4}))
    np.testing.assert_array_equal(images[at].numpy(), to_input(decode(files["COVID"]["covid-test%0.png"]), size))


def test_batches_of_inputs_keep_their_order(data: CovidCt) -> None:
    images = plain_inputs(data.train_and_val(), 32)
    batches = in_batches(images)
    assert len(batches) == 2
    assert torch.equal(torch.cat(list(batches)), images)


def test_training_batches_hold_every_slice_once_with_its_label_in_random_order(data: CovidCt, recipe: Recipe) -> None:
    whole = recipe.override(crop_scale_min=1.0, jpeg_probability=0)
    batches = list(training_batches(data.train, whole, 1, batch_size=8))
    assert [batch.images.shape for batch in batches] == [(8, 1, 32, 32)] * 2
    labels = torch.cat([batch.labels for batch in batches])
    assert sorted(labels.tolist()) == sorted(data.train.labels.tolist())
    assert labels.tolist() != data.train.labels.tolist()
    brightness = torch.cat([batch.images.float().mean((1, 2, 3)) for batch in batches])
    assert brightness[labels == 1].min() > brightness[labels == 0].max(), "generated COVID slices are brighter"


def test_augmentation_depends_on_seed_and_epoch_and_on_nothing_else(data: CovidCt, recipe: Recipe) -> None:
    def images(recipe: Recipe, epoch: int, workers: int = 0) -> torch.Tensor:
        torch.manual_seed(torch.seed())  # earlier draws must not matter
        return torch.cat([batch.images for batch in training_batches(data.train, recipe, epoch, 8, workers=workers)])

    first = images(recipe, 1)
    assert torch.equal(first, images(recipe, 1))
    assert torch.equal(first, images(recipe, 1, workers=1))
    assert not torch.equal(first, images(recipe, 2))
    assert not torch.equal(first, images(recipe.override(seed=1), 1))


def test_compression_keeps_brightness_and_changes_the_grain(data: CovidCt, recipe: Recipe) -> None:
    whole = recipe.override(crop_scale_min=1.0)
    plain, compressed = (
        augmented_inputs(data.train, changed, -1).float()
        for changed in (whole.override(jpeg_probability=0.0), whole.override(jpeg_probability=1.0))
    )
    brightness = [images.mean((1, 2, 3)) for images in (plain, compressed)]
    torch.testing.assert_close(*brightness, rtol=0.25, atol=0)
    assert not torch.equal(plain, compressed)


def test_a_last_batch_of_one_slice_is_dropped_because_batch_norm_needs_two(data: CovidCt, recipe: Recipe) -> None:
    batches = training_batches(data.train, recipe, 1, batch_size=5)
    assert [len(batch.labels) for batch in batches] == [5, 5, 5]
