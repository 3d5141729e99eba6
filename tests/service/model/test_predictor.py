import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import OverloadedError, UnusableImageError
from service.imaging.decode import Slice
from service.model.loading import LoadOptions, load_predictor
from service.model.prediction import NetworkPrediction
from service.model.predictor import Predictor, sizes_of_batches
from tests.support.networks.tiny import TinyNetwork, even, write_models


def load(folder: Path, **options: Any) -> Predictor:
    return load_predictor(LoadOptions(folder, device="cpu", **options))


def test_answers_are_in_the_order_of_the_slices(models: Path) -> None:
    predictor = load(models)
    answers = scored(predictor, 200, 20, 120)
    probabilities = [answer.probability for answer in answers]
    assert probabilities[0] > probabilities[2] > probabilities[1]
    assert answers[0].heatmap.shape == (4, 4)
    assert answers[0].check_scores["no_lungs"] == pytest.approx(1 - 200 / 255, abs=0.02)


def scored(predictor: Predictor, *levels: int) -> list[NetworkPrediction]:
    """Answers to even slices, each of which must be one."""
    answers = predictor.submit(lambda: predictor.predict_now([even(level) for level in levels])).result()
    assert all(isinstance(answer, NetworkPrediction) for answer in answers)
    return [answer for answer in answers if isinstance(answer, NetworkPrediction)]


def with_room_for(predictor: Predictor, count: int) -> list[int]:
    """Have the device run out of memory beyond `count` slices; the batches it was asked for."""
    healthy, asked = predictor._network, []

    def scarce(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        asked.append(len(slices))
        if len(slices) > count:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return healthy(slices)

    predictor._network = scarce
    return asked


def test_out_of_memory_halves_the_batch_and_everyone_is_answered(models: Path) -> None:
    predictor = load(models, threads=1)
    levels = [20, 60, 100, 140, 180, 220, 240]
    expected = scored(predictor, *levels)
    asked = with_room_for(predictor, 2)
    answers = scored(predictor, *levels)
    assert [prediction.probability for prediction in answers] == pytest.approx(
        [prediction.probability for prediction in expected]
    )
    assert asked[0] == 7
    assert max(asked[1:]) == 4
    assert not predictor.device_lost


def test_a_slice_that_does_not_fit_alone_is_told_to_come_again(models: Path) -> None:
    predictor = load(models, threads=1)
    with_room_for(predictor, 0)
    first, second = predictor.predict_now([even(20), even(200)])
    for answer in (first, second):
        assert isinstance(answer, OverloadedError)
        assert answer.code == "out_of_memory"
        assert answer.retry_after_seconds
    assert not predictor.device_lost


@pytest.mark.parametrize(
    ("message", "lost"), [("CUDA error: an illegal memory access was encountered", True), ("shapes differ", False)]
)
def test_an_error_of_the_device_is_told_from_one_of_the_network(models: Path, message: str, lost: bool) -> None:
    predictor = load(models)

    def fail(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        raise RuntimeError(message)

    predictor._network = fail
    with pytest.raises(RuntimeError, match=message):
        predictor.predict_now([even(20)])
    assert predictor.device_lost is lost


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 2), (16, 4)])
def test_a_cpu_takes_as_many_max_concurrent_batches_as_it_has_threads_up_to_a_few(
    models: Path, threads: int, at_once: int
) -> None:
    assert load(models, threads=threads).max_concurrent_batches == at_once


@pytest.mark.parametrize(("among", "expected"), [(1, 4), (2, 2), (3, 1), (4, 1)])
def test_batches_side_by_side_share_the_threads(models: Path, among: int, expected: int) -> None:
    predictor = load(models, threads=4)
    network, seen = predictor._network, []

    def watched(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return network(slices)

    predictor._network = watched
    predictor.submit(lambda: predictor.predict_now([even(100)], among)).result()
    assert seen == [expected]


@pytest.mark.parametrize(("threads", "most"), [(1, None), (2, None), (2, 1), (2, 8), (1, 8)])
def test_the_network_has_run_at_least_twice_before_the_first_request(
    models: Path, threads: int, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    predict = Predictor.predict_now

    def counted(self: Predictor, slices: Sequence[Slice], among: int = 1) -> list[NetworkPrediction | Exception]:
        sizes.append(len(slices))
        return predict(self, slices, among)

    monkeypatch.setattr(Predictor, "predict_now", counted)
    load(models, threads=threads, max_batch_size=most)
    assert len(sizes) >= 2
    assert {1, most or 1} <= set(sizes)


def test_batches_that_run_alone_run_in_one_thread_and_those_beside_it_in_others(models: Path) -> None:
    predictor = load(models, threads=4)
    release = threading.Event()
    first = predictor.submit(lambda: (threading.current_thread(), release.wait(10))[0], 2)
    beside = predictor.submit(threading.current_thread, 2).result()
    release.set()
    assert beside is not first.result()
    assert {predictor.submit(threading.current_thread).result() for _ in range(3)} == {first.result()}
    beside.join(10)  # it has a team of two threads, which would slow down those that run alone
    assert not beside.is_alive()
    predictor.close()


class WithFinder(TinyNetwork):
    """A lung finder in front, which sees lungs where the slice is brighter than a tenth."""

    @torch.jit.export
    def look(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        grey = slices.float().mean((1, 2, 3)) / 255
        return slices, grey, grey, grey, grey

    @torch.jit.export
    def check(self, lung: torch.Tensor, kind: torch.Tensor, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"no_lungs": (lung < 0.1).float(), "wrong_window": 0 * flat, "several_panels": 0 * kind}


def test_the_network_does_not_read_what_the_lung_finder_refuses(tmp_path: Path) -> None:
    write_models(tmp_path, network=WithFinder())
    predictor = load(tmp_path, threads=1)
    read: list[int] = []
    network = predictor._network

    def counting(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        read.extend(int(level) for level in slices.float().mean((1, 2, 3)))
        return network(slices)

    predictor._network = counting
    answers = predictor.predict_now([even(20), even(200), even(10)], 1, [True, True, False])
    assert read == [200, 10]
    assert isinstance(answers[0], UnusableImageError)
    assert answers[0].code == "no_lungs"
    assert [isinstance(answer, NetworkPrediction) for answer in answers] == [False, True, True]


def test_without_a_lung_finder_the_network_reads_every_slice(models: Path) -> None:
    answers = load(models, threads=1).predict_now([even(5), even(200)], 1, [True, True])
    assert all(isinstance(answer, NetworkPrediction) for answer in answers)


@pytest.mark.parametrize(
    ("max_size", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (32, (1, 2, 4, 8, 16, 32)), (33, (1, 2, 4, 8, 16, 32, 33))],
)
def test_sizes_double_up_to_the_largest(max_size: int, sizes: tuple[int, ...]) -> None:
    assert sizes_of_batches(max_size) == sizes
