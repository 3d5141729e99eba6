import numpy as np
import torch

from service.imaging.decode import decode, to_input
from tests.support.sources.covid_ct import small_files, small_lists
from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import CovidCt
from training.report_recipe import ReportRecipe


def test_plain_inputs_are_exactly_those_of_the_service(data: CovidCt, recipe: ReportRecipe) -> None:
    size = recipe.input_size
    images = plain_inputs(data.test, size)
    assert (images.shape, images.dtype) == ((8, 1, size, size), torch.uint8)
    at = [slice_.path for slice_ in data.test.slices].index("CT_COVID/covid-test%0.png")
    files = small_files(small_lists({"train": 8, "val": 4, "test": 4}))
    np.testing.assert_array_equal(images[at].numpy(), to_input(decode(files["COVID"]["covid-test%0.png"]), size))


def test_batches_of_inputs_keep_their_order(data: CovidCt) -> None:
    images = plain_inputs(data.train_and_val(), 32)
    batches = in_batches(images)
    assert len(batches) == 2
    assert torch.equal(torch.cat(list(batches)), images)
