import io

import pytest
import torch

from tests.support.files.slices import slices
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import LungFinder
from training.release.quantisation import quantise


@pytest.fixture(scope="module")
def reader() -> LesionReader:
    """With random weights, and batch norms that know their inputs' statistics."""
    torch.manual_seed(0)
    network = LesionNetwork()
    with torch.no_grad():
        network(torch.rand(2, 1, 192, 256))
    return LesionReader(LungFinder().eval(), network.eval(), AppearanceProbe(512)).eval()


@pytest.fixture(scope="module")
def inputs(reader: LesionReader) -> list[torch.Tensor]:
    """Of its features."""
    with torch.inference_mode():
        return [reader.look(slices(1))[0]]


def test_int8_answers_nearly_as_fp32_does_in_a_quarter_of_the_bytes(
    reader: LesionReader, inputs: list[torch.Tensor]
) -> None:
    quantised = quantise(reader, inputs)
    with torch.inference_mode():
        exact, rounded = reader(slices(1)), quantised(slices(1))
    assert rounded["probability"] == pytest.approx(exact["probability"], abs=0.05)
    assert rounded.keys() == exact.keys()
    assert not torch.equal(rounded["heatmap"], exact["heatmap"]), "something must have been rounded"
    assert _bytes(quantised.features) < 0.3 * _bytes(reader.features)


def test_the_network_that_was_quantised_stays_as_it_was(reader: LesionReader, inputs: list[torch.Tensor]) -> None:
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    quantise(reader, inputs)
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())


def _bytes(module: torch.nn.Module) -> int:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
