import io
import warnings

import pytest
import torch
from torch import nn

from tests.support.files.slices import slices
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.release.quantisation import quantise


@pytest.fixture(scope="module")
def reader() -> LesionReader:
    """With random weights, and batch norms that know their inputs' statistics."""
    torch.manual_seed(0)
    network = LesionNetwork()
    with torch.no_grad():
        network(torch.rand(2, 1, 192, 256))
    return LesionReader(
        LungFinder().eval(), ViewChecker().eval(), network.eval(), AppearanceProbe(512), (192, 256)
    ).eval()


@pytest.fixture(scope="module")
def before(reader: LesionReader) -> dict[str, torch.Tensor]:
    """Its weights before it is quantised."""
    return {name: value.clone() for name, value in reader.state_dict().items()}


@pytest.fixture(scope="module")
def quantised(reader: LesionReader, before: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The same in int8, calibrated on one slice."""
    return quantise(reader, [slices(1)])


def test_int8_predicts_nearly_as_fp32_does_in_a_quarter_of_the_bytes(
    reader: LesionReader, quantised: LesionReader
) -> None:
    with torch.inference_mode():
        exact, rounded = reader(slices(1)), quantised(slices(1))
    assert rounded["probability"] == pytest.approx(exact["probability"], abs=0.05)
    assert rounded.keys() == exact.keys()
    for name in ("heatmap", "lungs"):
        assert not torch.equal(rounded[name], exact[name]), "something must have been rounded"
    for part in ("features", "finder", "decoder"):
        assert _bytes(quantised.get_submodule(part)) < 0.35 * _bytes(reader.get_submodule(part))


def test_only_small_convolutions_stay_in_fp32(quantised: LesionReader) -> None:
    """The finder's first one, those that end in one or two channels, and the view checker, which is small."""
    plain = [
        name for name, part in quantised.named_modules() if type(part) is nn.Conv2d and not name.startswith("views.")
    ]
    assert sorted(plain) == ["decoder.out", "finder.down_0.0.0", "finder.lung"]


def test_int8_predictions_do_not_depend_on_the_number_of_threads(quantised: LesionReader) -> None:
    """So a slice gets the same prediction alone, with all threads, as under load, with one.

    The last bits may differ: on some processors the order of the sums of the decoder's last layer, in fp32, does.
    """
    noise = torch.randint(0, 256, (1, 1, 320, 320), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outputs = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                outputs.append(quantised(noise))
    finally:
        torch.set_num_threads(before)
    for other in outputs[1:]:
        for name, value in outputs[0].items():
            torch.testing.assert_close(other[name], value, rtol=0.0, atol=1e-6)


def test_the_quantised_network_can_be_a_model_file(quantised: LesionReader) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(quantised)
        assert torch.equal(scripted(slices(1))["probability"], quantised(slices(1))["probability"])


@pytest.mark.usefixtures("quantised")
def test_the_network_that_was_quantised_stays_as_it_was(reader: LesionReader, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())


def _bytes(module: torch.nn.Module) -> int:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()
