"""What only a GPU can show: the shipped network in fp16, CUDA graphs, memory that runs out, and a reload."""

import logging
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
from service.model.cuda_graphs import CudaGraphs
from service.model.file import Network, load_model, load_on_cpu, read_manifest, synthetic_slice
from service.model.loading import LoadOptions, choose_file, load_predictor
from service.model.prediction import Prediction
from service.model.predictor import Predictor
from service.model.staging import Staging, sizes_of_batches
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
    assert all(isinstance(answer, Prediction) for answer in answers), answers
    return [answer.probability for answer in answers if isinstance(answer, Prediction)]


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


@pytest.fixture
def network(models: Path) -> Network:
    file = choose_file(read_manifest(models), "fp16")
    return load_model(models / file.name, CUDA, "fp16", file.sha256).network


def test_graphs_answer_as_the_network_itself_for_every_batch_size_in_any_order(network: Network) -> None:
    graphs = CudaGraphs(network, CUDA)
    sizes = sizes_of_batches(LARGEST)
    graphs.record(sizes, INPUT_SIZE)
    assert graphs.sizes == sizes
    everything = torch.from_numpy(np.stack(random_slices(2 * LARGEST))).to(CUDA)
    for offset, order in enumerate((sizes, sizes[::-1], sizes[::2] + sizes[1::2])):
        for size in order:
            batch = everything[offset : offset + size]
            found = {name: value.clone() for name, value in graphs(batch).items()}
            with torch.inference_mode():
                expected = network(batch)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=0, atol=2e-3)


def test_the_predictor_replays_recorded_passes(predictor: Predictor) -> None:
    assert predictor._gpu is not None
    assert predictor._gpu.recorded_sizes == sizes_of_batches(LARGEST)


def test_two_batches_at_a_time_get_their_own_answers_in_order(predictor: Predictor) -> None:
    slices = random_slices(LARGEST)
    expected = probabilities(predictor, slices)
    batches = [range(at % 8, at % 8 + 1 + 7 * at % 50) for at in range(200)]
    with ThreadPoolExecutor(predictor.max_concurrent_batches) as pool:
        found = pool.map(lambda batch: predictor.predict_now([slices[i] for i in batch]), batches)
        for batch, answers in zip(batches, found, strict=True):
            given = [answer.probability for answer in answers if isinstance(answer, Prediction)]
            assert given == pytest.approx([expected[i] for i in batch], abs=2e-3)


def test_a_busy_gpu_gets_batches_of_the_sizes_that_were_warmed_up() -> None:
    staging = Staging(CUDA, 8, 4, slots=2)
    numbered = [np.full((1, 4, 4), number, np.uint8) for number in range(1, 9)]
    busy = torch.ones(4096, 4096, device=CUDA)
    for count, size in ((1, 1), (3, 4), (5, 8), (2, 2)):
        for _ in range(20):
            busy = busy @ busy
        with staging.gather(numbered[:count]) as batch:
            assert batch.device.type == "cuda"
            assert batch.shape == (size, 1, 4, 4)
            assert [int(row.max()) for row in batch[:count]] == list(range(1, count + 1))


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
    assert shipped._gpu is not None
    slices = random_slices(LARGEST, shipped.card.input_size)
    expected = probabilities(shipped, slices)
    shipped._gpu._graphs.clear()  # a recorded pass has its memory already
    torch.cuda.synchronize()
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
            successor = on_gpu(models)  # records while the other computes
        finally:
            stop.set()
        assert answering.result() > 0
    assert predictor._gpu is not None
    predictor.close()
    assert successor._gpu is not None
    assert successor._gpu.recorded_sizes == sizes_of_batches(LARGEST)
    assert probabilities(successor, slices) == pytest.approx(expected, abs=2e-3)
    successor.close()


def test_a_network_that_waits_for_the_device_runs_without_graphs(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Keep it last: torch's memory may not be the same after a recording that failed."""

    def waiting(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = network(batch)
        assert 0 <= outputs["probability"].max().item() <= 1
        return outputs

    graphs = CudaGraphs(waiting, CUDA)
    with caplog.at_level(logging.WARNING):
        graphs.record((1, 2), INPUT_SIZE)
    assert graphs.sizes == ()
    (line,) = caplog.messages
    assert line.startswith("no CUDA graphs")
    batch = torch.from_numpy(np.stack(random_slices(2))).to(CUDA)
    with torch.inference_mode():
        torch.testing.assert_close(graphs(batch)["probability"], network(batch)["probability"])
