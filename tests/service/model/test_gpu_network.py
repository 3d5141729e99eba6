from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from service.model.file import Artifact
from service.model.loading import SelfCheckError, _warm_up
from service.model.prediction import Prediction
from service.model.predictor import Predictor
from tests.service.model.imitated_cuda import ImitatedCuda
from tests.support.networks.tiny import TinyNetwork, even, tiny_card

SIZES = (1, 2, 4, 8)


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
    artifact = Artifact(imitated_cuda.network(network), tiny_card(), "")
    predictor = Predictor(artifact, torch.device("cuda"), "fp32", max_batch_size=8)
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


def test_two_batches_are_in_flight_on_a_gpu_and_take_turns(predictor: Predictor) -> None:
    assert (predictor.max_concurrent_batches, predictor.batches_take_turns) == (2, True)


def test_the_self_check_is_of_the_recorded_passes(predictor: Predictor, imitated_cuda: ImitatedCuda) -> None:
    _warm_up(predictor, Path("tiny.pt"))
    assert imitated_cuda.recorded == [8, 4, 2, 1]
    assert len(imitated_cuda.runs) == 5 * len(SIZES), "only those before the recordings"


def test_a_network_that_can_not_be_recorded_is_checked_in_every_size(
    predictor: Predictor, imitated_cuda: ImitatedCuda
) -> None:
    imitated_cuda.failures[2] = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    _warm_up(predictor, Path("tiny.pt"))
    assert predictor._gpu is not None
    assert predictor._gpu.recorded_sizes == ()
    assert set(imitated_cuda.runs[-5:]) == set(SIZES)
    assert not predictor.device_lost


def test_a_device_that_is_lost_during_the_recording_stops_the_start_in_one_line(
    predictor: Predictor, network: Scarce, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA` to see more.")

    monkeypatch.setattr(network, "forward", fail)
    with pytest.raises(SelfCheckError, match="unspecified launch failure") as caught:
        _warm_up(predictor, Path("tiny.pt"))
    assert "\n" not in str(caught.value)


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
