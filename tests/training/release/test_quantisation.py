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
def before(reader: LesionReader) -> dict[str, torch.Tensor]:
    """Its weights before it is quantised."""
    return {name: value.clone() for name, value in reader.state_dict().items()}


@pytest.fixture(scope="module")
def quantised(reader: LesionReader, before: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The same in int8, calibrated on one slice."""
    with torch.inference_mode():
        inputs = [reader.look(slices(1))[0]]
    return quantise(reader, inputs)


def test_int8_answers_nearly_as_fp32_does_in_a_quarter_of_the_bytes(
    reader: LesionReader, quantised: LesionReader
) -> None:
    with torch.inference_mode():
        exact, rounded = reader(slices(1)), quantised(slices(1))
    assert rounded["probability"] == pytest.approx(exact["probability"], abs=0.05)
    assert rounded.keys() == exact.keys()
    assert not torch.equal(rounded["heatmap"], exact["heatmap"]), "something must have been rounded"
    assert _bytes(quantised.features) < 0.3 * _bytes(reader.features)


@pytest.mark.usefixtures("quantised")
def test_the_network_that_was_quantised_stays_as_it_was(reader: LesionReader, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())


def _bytes(module: torch.nn.Module) -> int:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
