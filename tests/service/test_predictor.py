import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from service.artifact import synthetic_slice
from service.errors import ModelFileError
from service.predictor import Prediction, choose_precision, load_predictor, usable_processors
from service.processor import choose_device, has_native_bf16
from service.settings import Settings
from tests.tiny import INPUT_SIZE, TinyNetwork, tiny_card, write_models

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_predictions_come_in_the_order_of_the_slices(settings: Settings) -> None:
    predictor = load_predictor(settings)
    slices = [np.full((1, INPUT_SIZE, INPUT_SIZE), level, np.uint8) for level in (0, 100, 200, 255, 30)]
    answers = predictor.predict_now(slices)
    expected, scores, heatmaps = TinyNetwork().eval()(torch.from_numpy(np.stack(slices)))
    for i, answer in enumerate(answers):
        assert isinstance(answer, Prediction)
        assert answer.probability == pytest.approx(expected[i].item(), abs=1e-3)
        assert answer.ood_score == pytest.approx(scores[i].item(), abs=1e-3)
        np.testing.assert_allclose(answer.heatmap, heatmaps[i].detach().numpy(), atol=1e-3)
    predictor.close()


@pytest.mark.anyio
async def test_the_network_runs_in_one_thread_that_is_not_the_event_loops(settings: Settings) -> None:
    predictor = load_predictor(settings)
    threads: list[str] = []
    network = predictor._network

    def watched(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        threads.append(threading.current_thread().name)
        return network(batch)

    predictor._network = watched
    for _ in range(3):
        await predictor.predict([synthetic_slice(0, INPUT_SIZE)])
    assert len(set(threads)) == 1
    assert threads[0].startswith("predictor")
    predictor.close()


def test_a_model_that_does_not_answer_as_its_card_says_is_refused(settings: Settings, tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card(probability=0.9))
    with pytest.raises(ModelFileError, match=r"self-check failed: probability 0\.37.*the card says 0\.900000"):
        load_predictor(settings.model_copy(update={"models_dir": tmp_path}))


def test_a_model_that_answers_nan_is_refused(settings: Settings, tmp_path: Path) -> None:
    network = TinyNetwork()
    torch.nn.init.constant_(network.conv.weight, float("nan"))
    write_models(tmp_path, network=network)
    with pytest.raises(ModelFileError, match=r"self-check failed: .*not a finite number"):
        load_predictor(settings.model_copy(update={"models_dir": tmp_path}))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_answer_within_the_cards_tolerance(settings: Settings, precision: str) -> None:
    predictor = load_predictor(settings.model_copy(update={"precision": precision}))
    assert predictor.precision == precision
    predictor.close()


def test_an_explicit_precision_is_taken_and_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("auto", CUDA) == "fp16"
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native}, raising=False)
        assert choose_precision("auto", CPU) == precision


def test_a_version_of_torch_that_can_not_tell_means_no_native_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_native_bf16(CPU) is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_refused_and_auto_takes_the_cpu(settings: Settings) -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ModelFileError, match="COVIDCT_DEVICE=cuda: no CUDA device is available"):
        load_predictor(settings.model_copy(update={"device": "cuda"}))


@needs_cuda
def test_a_gpu_answers_as_the_cpu_does(settings: Settings) -> None:
    answers = []
    for device in ("cpu", "cuda"):
        predictor = load_predictor(settings.model_copy(update={"device": device, "precision": "fp32"}))
        (answer,) = predictor.predict_now([synthetic_slice(1, INPUT_SIZE)])
        assert isinstance(answer, Prediction)
        answers.append(answer.probability)
        predictor.close()
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="processor affinity and control groups are Linux's")
def test_the_processors_are_those_that_the_process_may_use() -> None:
    assert 1 <= usable_processors() <= len(os.sched_getaffinity(0))
