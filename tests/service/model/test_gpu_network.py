from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from service.imaging.decode import Slice
from service.model.file import Artifact
from service.model.gpu_network import GpuNetwork
from service.model.prediction import Prediction
from service.model.predictor import Predictor
from service.model.staging import Staging
from tests.service.model.imitated_cuda import ImitatedCuda
from tests.support.networks.tiny import INPUT_SIZE, TinyNetwork, tiny_card

CPU = torch.device("cpu")
SIZES = (1, 2, 4, 8)


def even(level: int) -> Slice:
    return np.full((1, INPUT_SIZE, INPUT_SIZE), level, np.uint8)


class Scarce(TinyNetwork):
    """Has memory for `room` slices at a time."""

    room = 1000

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(slices) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().forward(slices)


@pytest.fixture
def network() -> Scarce:
    return Scarce().eval()


@pytest.fixture
def predictor(imitated_cuda: ImitatedCuda, network: Scarce) -> Iterator[Predictor]:
    """One as on a GPU, on the imitation: two batches at a time, each in a slot of its own."""
    predictor = Predictor(Artifact(network, tiny_card(), ""), CPU, "fp32", max_batch_size=8, threads=2)
    predictor._staging = Staging(CPU, 8, INPUT_SIZE, slots=2)
    predictor._network = predictor._gpu = GpuNetwork(imitated_cuda.network(network), CPU)
    yield predictor
    predictor.close()


def probabilities(predictor: Predictor, levels: list[int]) -> list[float]:
    answers = predictor.predict_now([even(level) for level in levels])
    assert all(isinstance(answer, Prediction) for answer in answers)
    return [answer.probability for answer in answers if isinstance(answer, Prediction)]


def expected(network: Scarce, levels: list[int]) -> list[float]:
    batch = torch.from_numpy(np.stack([even(level) for level in levels]))
    with torch.inference_mode():
        found: list[float] = network(batch)["probability"].tolist()
    return found


@pytest.mark.parametrize("recorded", [True, False])
def test_batches_that_meet_get_their_own_answers_in_order(
    predictor: Predictor, network: Scarce, imitated_cuda: ImitatedCuda, recorded: bool
) -> None:
    if recorded:
        predictor.record_passes()
    batches = [[(17 * at + 31 * i) % 256 for i in range(1 + at % 8)] for at in range(60)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda levels: probabilities(predictor, levels), batches))
    for levels, answers in zip(batches, found, strict=True):
        assert answers == pytest.approx(expected(network, levels), abs=1e-6)
    assert len(imitated_cuda.threads) == 1, "cuDNN keeps handles for each thread"
    assert predictor._gpu is not None
    assert predictor._gpu.recorded_sizes == (SIZES if recorded else ())


def test_without_memory_a_batch_is_halved_on_a_gpu_too(predictor: Predictor, network: Scarce) -> None:
    network.room = 2
    levels = [20, 60, 100, 140, 180, 220, 240]
    assert probabilities(predictor, levels) == pytest.approx(expected(Scarce().eval(), levels), abs=1e-6)
    assert not predictor.device_lost


def test_sizes_for_which_there_is_memory_are_recorded(predictor: Predictor, network: Scarce) -> None:
    network.room = 2
    predictor.record_passes()
    assert predictor._gpu is not None
    assert predictor._gpu.recorded_sizes == (1, 2)
    levels = [20, 60, 100]
    assert probabilities(predictor, levels) == pytest.approx(expected(Scarce().eval(), levels), abs=1e-6)


def test_a_lost_device_is_noticed_from_the_other_thread(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, network: Scarce
) -> None:
    def fail(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(network, "forward", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        predictor.predict_now([even(20)])
    assert predictor.device_lost


def test_after_closing_no_recording_is_left(predictor: Predictor) -> None:
    predictor.record_passes()
    predictor.close()
    assert predictor._gpu is not None
    assert predictor._gpu.recorded_sizes == ()
