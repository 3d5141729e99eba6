"""Behaviour on a real GPU: the shipped network in fp16, batches, running out of memory, and a reload."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from service.imaging.decode import Slice
from service.model.choice import choose_file
from service.model.file import load_on_cpu, read_manifest, synthetic_slice
from service.model.loading import LoadOptions, load_predictor
from service.model.prediction import NetworkPrediction
from service.model.predictor import Predictor, to_device
from tests.support.networks.tiny import INPUT_SIZE

pytestmark = pytest.mark.gpu

CUDA: Final = torch.device("cuda")
SHIPPED: Final = Path(__file__).parents[3] / "models"
LARGEST: Final = 64


def random_slices(count: int, side: int = INPUT_SIZE) -> list[Slice]:
    return [synthetic_slice(seed, side) for seed in range(count)]


def on_gpu(folder: Path) -> Predictor:
    return load_predictor(LoadOptions(folder, device="cuda"))


def probabilities(predictor: Predictor, slices: list[Slice]) -> list[float]:
    answers = predictor.submit(lambda: predictor.predict_now(slices)).result()
    assert all(isinstance(answer, NetworkPrediction) for answer in answers), answers
    return [answer.probability for answer in answers if isinstance(answer, NetworkPrediction)]


@pytest.fixture
def predictor(models: Path) -> Iterator[Predictor]:
    predictor = on_gpu(models)
    yield predictor
    predictor.close()


@pytest.fixture(scope="module")
def shipped() -> Iterator[Predictor]:
    """The shipped network, which has passed its self-check in batches of every size."""
    predictor = on_gpu(SHIPPED)
    yield predictor
    predictor.close()


def test_the_shipped_network_passes_its_self_check_in_fp16(shipped: Predictor) -> None:
    assert (shipped.device.type, shipped.precision, shipped.max_batch_size) == ("cuda", "fp16", LARGEST)


def test_in_fp16_the_shipped_network_answers_as_on_a_cpu_in_fp32(shipped: Predictor) -> None:
    slices = random_slices(5, shipped.card.input_size)
    network = load_on_cpu(SHIPPED, choose_file(read_manifest(SHIPPED), "fp16")).network
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.stack(slices)))["probability"].tolist()
    assert probabilities(shipped, slices) == pytest.approx(expected, abs=shipped.card.self_check.tolerance["fp16"])


@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_gpu_answers_as_the_processor_does_whatever_the_batch(models: Path, predictor: Predictor, count: int) -> None:
    slices = random_slices(count)
    on_cpu = load_predictor(LoadOptions(models, device="cpu", precision="fp32"))
    assert probabilities(predictor, slices) == pytest.approx(probabilities(on_cpu, slices), abs=0.01)


def test_two_batches_at_a_time_get_their_own_answers_in_order(predictor: Predictor) -> None:
    slices = random_slices(LARGEST)
    expected = probabilities(predictor, slices)
    batches = [range(at % 8, at % 8 + 1 + 7 * at % 50) for at in range(200)]
    with ThreadPoolExecutor(2) as pool:
        predictions = pool.map(lambda batch: predictor.predict_now([slices[i] for i in batch]), batches)
        for batch, answers in zip(batches, predictions, strict=True):
            given = [answer.probability for answer in answers if isinstance(answer, NetworkPrediction)]
            assert given == pytest.approx([expected[i] for i in batch], abs=2e-3)


def test_a_busy_gpu_gets_batches_of_the_sizes_that_were_warmed_up() -> None:
    numbered = [np.full((1, 4, 4), number, np.uint8) for number in range(1, 9)]
    busy = torch.ones(4096, 4096, device=CUDA)
    for count, size in ((1, 1), (3, 4), (5, 8), (2, 2)):
        for _ in range(20):
            busy = busy @ busy
        batch = to_device(numbered[:count], CUDA, 8)
        assert batch.device.type == "cuda"
        assert batch.shape == (size, 1, 4, 4)
        assert [int(row.max()) for row in batch] == [*range(1, count + 1), *[0] * (size - count)]


@contextmanager
def memory_left(mebibytes: int) -> Iterator[None]:
    """Have torch find no more memory than that for the length of the context."""
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + mebibytes * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(CUDA).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_halves_the_batch_and_everyone_is_answered(shipped: Predictor) -> None:
    slices = random_slices(LARGEST, shipped.card.input_size)
    expected = probabilities(shipped, slices)
    with memory_left(256):  # the first convolutions alone write twice 6 MiB a slice
        assert probabilities(shipped, slices) == pytest.approx(expected, abs=0.01)
    assert not shipped.device_lost
    assert probabilities(shipped, slices) == pytest.approx(expected, abs=0.01)


def test_after_a_reload_both_models_answer_until_the_old_one_is_closed(models: Path, predictor: Predictor) -> None:
    slices = random_slices(7)
    expected = probabilities(predictor, slices)
    stop = threading.Event()

    def answer_until_stopped() -> int:
        count = 0
        while not stop.is_set():
            assert probabilities(predictor, slices) == pytest.approx(expected, abs=2e-3)
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer_until_stopped)
        try:
            successor = on_gpu(models)
        finally:
            stop.set()
        assert answering.result() > 0
    predictor.close()
    assert probabilities(successor, slices) == pytest.approx(expected, abs=2e-3)
    successor.close()
