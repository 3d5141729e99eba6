import io
from pathlib import Path

import pytest
import torch

from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import CovidCt
from training.network.deployable import Deployable
from training.network.slice_network import SliceNetwork
from training.network.weights import load_imagenet
from training.recipe import Recipe
from training.release.quantisation import quantise
from training.run.seeding import seed_everything


@pytest.fixture(scope="module")
def deployable(recipe: Recipe, weights: Path) -> Deployable:
    seed_everything(0, "weights")
    network = SliceNetwork(recipe.network)
    load_imagenet(network, recipe.network.architecture, weights)
    return Deployable(network.eval(), 1.0).eval()


def test_int8_answers_nearly_as_fp32_does_in_a_quarter_of_the_bytes(deployable: Deployable, data: CovidCt) -> None:
    quantised = quantise(deployable, in_batches(plain_inputs(data.train, 32)))
    images = plain_inputs(data.test, 32)
    with torch.inference_mode():
        exact, rounded = deployable(images), quantised(images)
    assert rounded["probability"] == pytest.approx(exact["probability"], abs=0.05)
    assert rounded["heatmap"].shape == exact["heatmap"].shape
    assert not torch.equal(rounded["probability"], exact["probability"]), "something must have been rounded"
    assert _bytes(quantised) < 0.3 * _bytes(deployable)


def test_the_network_that_was_quantised_stays_as_it_was(deployable: Deployable, data: CovidCt) -> None:
    before = {name: value.clone() for name, value in deployable.state_dict().items()}
    quantise(deployable, in_batches(plain_inputs(data.train, 32))[:1])
    assert all(torch.equal(value, before[name]) for name, value in deployable.state_dict().items())


def _bytes(module: torch.nn.Module) -> int:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
