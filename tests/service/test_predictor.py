import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.artifact import MANIFEST_NAME, read_manifest
from service.errors import InferenceError, ModelFileError, OverloadedError
from service.image import Slice
from service.predictor import Prediction, Predictor, choose_precision, load_predictor
from service.settings import Settings
from tests.tiny import INPUT_SIZE, TinyNetwork, tiny_card, write_models

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def load(folder: Path, **settings: Any) -> Predictor:
    return load_predictor(Settings(models_dir=folder, device="cpu", **settings))


def even(level: int) -> Slice:
    return np.full((1, INPUT_SIZE, INPUT_SIZE), level, np.uint8)


def test_answers_are_in_the_order_of_the_slices(models: Path) -> None:
    predictor = load(models)
    answers = scored(predictor, 200, 20, 120)
    probabilities = [answer.probability for answer in answers]
    assert probabilities[0] > probabilities[2] > probabilities[1]
    assert answers[0].heatmap.shape == (4, 4)
    assert answers[0].ood_score == pytest.approx(1 - 200 / 255, abs=0.02)


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_every_precision_passes_the_self_check_or_is_refused_in_one_line(models: Path, wanted: str) -> None:
    predictor = load(models, precision=wanted)
    assert predictor.precision == wanted
    assert scored(predictor, 128)[0].probability == pytest.approx(0.5, abs=0.1)


def scored(predictor: Predictor, *levels: int) -> list[Prediction]:
    """Answers to even slices, each of which must be one."""
    answers = predictor.submit(lambda: predictor.predict_now([even(level) for level in levels])).result()
    assert all(isinstance(answer, Prediction) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Prediction)]


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(ModelFileError) as caught:
        load(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_model_that_answers_otherwise_than_its_card_is_refused(tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card(probability=0.99))
    assert "0.99" in refusal(tmp_path)


class NanNetwork(TinyNetwork):
    """Answers NaN to everything."""

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        grey = slices.to(self.conv.weight.dtype)
        maps = self.conv(grey).mean(1)
        nothing = maps.float().mean((1, 2)) * float("nan")
        return nothing, nothing, maps.float()


def test_a_model_that_answers_nan_to_its_self_check_is_refused(tmp_path: Path) -> None:
    write_models(tmp_path, network=NanNetwork())
    assert "finite" in refusal(tmp_path)


class RaisingNetwork(TinyNetwork):
    """Wants another input than its card says."""

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.conv(slices.to(self.conv.weight.dtype).repeat(1, 3, 1, 1)).mean(1)
        return maps.mean((1, 2)), maps.mean((1, 2)), maps


def test_a_model_that_cannot_be_run_is_refused_in_one_line(tmp_path: Path) -> None:
    row = write_models(tmp_path, network=RaisingNetwork())
    assert row.name in refusal(tmp_path)


def test_a_precision_without_a_tolerance_is_refused(tmp_path: Path) -> None:
    card = tiny_card()
    check = card.self_check.model_copy(update={"tolerance": {"fp16": 0.02}})
    write_models(tmp_path, card.model_copy(update={"self_check": check}))
    assert "tolerance" in refusal(tmp_path, precision="fp32")


def test_a_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    manifest = {"schema_version": 1, "files": [row.model_dump() | {"sha256": "0" * 64}]}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert row.sha256 in refusal(tmp_path)


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """A models folder with an int8 and an fp16 file, in this order."""
    rows = [write_models(tmp_path, tiny_card().model_copy(update={"precision": each})) for each in ("int8", "fp16")]
    text = json.dumps({"schema_version": 1, "files": [row.model_dump() for row in rows]})
    (tmp_path / MANIFEST_NAME).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_vnni": True, "avx512_bf16": True}, "int8"),
        ({"avx_vnni": True}, "int8"),
        ({"avx512_bf16": True}, "bf16"),
        ({"avx2": True}, "fp32"),
    ],
)
def test_a_cpu_serves_the_file_whose_format_it_multiplies_fastest(
    two_files: Path, monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr("service.processor._capabilities", lambda: has)
    predictor = load(two_files)
    assert predictor.precision == expected
    assert predictor.card.precision == ("int8" if expected == "int8" else "fp16")
    assert load(two_files, precision="fp32").card.precision == "fp16", "the setting overrules the choice"
    assert load(two_files, precision="int8").card.precision == "int8"


def test_a_folder_with_int8_alone_is_served_in_it_and_in_nothing_else(tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card().model_copy(update={"precision": "int8"}))
    assert load(tmp_path).precision == "int8"
    assert "COVIDCT_PRECISION=bf16" in refusal(tmp_path, precision="bf16")


def test_a_torch_that_cannot_tell_its_instruction_sets_computes_in_fp32(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert load(two_files).precision == "fp32"


def test_a_gpu_computes_in_half_precision_unless_told_otherwise(two_files: Path) -> None:
    manifest = read_manifest(two_files)
    assert choose_precision("auto", CUDA, manifest) == "fp16"
    assert choose_precision("fp32", CUDA, manifest) == "fp32"


def test_int8_is_refused_where_there_is_no_such_file(models: Path) -> None:
    assert refusal(models, precision="int8") == (
        "COVIDCT_PRECISION=int8: no file of the manifest computes in it; stored is fp16"
    )


def test_int8_is_refused_on_a_gpu(two_files: Path) -> None:
    with pytest.raises(ModelFileError, match="int8 files compute on a CPU, not on cuda"):
        choose_precision("int8", CUDA, read_manifest(two_files))


def test_a_manifest_that_says_int8_of_an_fp16_file_is_refused(tmp_path: Path) -> None:
    row = write_models(tmp_path).model_dump() | {"precision": "int8"}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"schema_version": 1, "files": [row]}))
    assert "its card says fp16; it can't compute in int8" in refusal(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line_that_names_the_setting(models: Path) -> None:
    with pytest.raises(ModelFileError, match="COVIDCT_DEVICE") as caught:
        load_predictor(Settings(models_dir=models, device="cuda"))
    assert "\n" not in str(caught.value)


def test_a_slice_whose_answer_is_no_number_does_not_harm_its_neighbours(models: Path) -> None:
    predictor = load(models, threads=1)
    healthy = predictor._network

    def nan_for_first(slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        probability, score, heatmap = healthy(slices)
        return torch.cat([probability[:1] * float("nan"), probability[1:]]), score, heatmap

    predictor._network = nan_for_first
    first, second = predictor.predict_now([even(20), even(200)])
    assert isinstance(first, InferenceError)
    assert isinstance(second, Prediction)
    assert second.probability > 0.5


def with_room_for(predictor: Predictor, count: int) -> list[int]:
    """Have the device run out of memory beyond `count` slices; the batches it was asked for."""
    healthy, asked = predictor._network, []

    def scarce(slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
    assert [each.probability for each in answers] == pytest.approx([each.probability for each in expected])
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

    def fail(slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise RuntimeError(message)

    predictor._network = fail
    with pytest.raises(RuntimeError, match=message):
        predictor.predict_now([even(20)])
    assert predictor.device_lost is lost


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 2), (16, 4)])
def test_a_cpu_takes_as_many_batches_at_once_as_it_has_threads_up_to_a_few(
    models: Path, threads: int, at_once: int
) -> None:
    assert load(models, threads=threads).batches_at_once == at_once


@pytest.mark.parametrize(("among", "expected"), [(1, 4), (2, 2), (3, 1), (4, 1)])
def test_batches_side_by_side_share_the_threads(models: Path, among: int, expected: int) -> None:
    predictor = load(models, threads=4)
    network, seen = predictor._network, []

    def watched(slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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

    def counted(self: Predictor, slices: Sequence[Slice], among: int = 1) -> list[Prediction | Exception]:
        sizes.append(len(slices))
        return predict(self, slices, among)

    monkeypatch.setattr(Predictor, "predict_now", counted)
    load(models, threads=threads, batch_max_size=most)
    assert len(sizes) >= 2
    assert {1, most or 1} <= set(sizes)


def test_threads_are_those_of_the_settings(models: Path) -> None:
    before = torch.get_num_threads()
    try:
        load(models, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.anyio
async def test_the_network_runs_in_one_thread_that_is_not_the_event_loops(models: Path) -> None:
    predictor = load(models, threads=1)
    threads: list[str] = []
    network = predictor._network

    def watched(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        threads.append(threading.current_thread().name)
        return network(batch)

    predictor._network = watched
    for _ in range(3):
        await predictor.predict([even(100)])
    assert len(set(threads)) == 1
    assert threads[0].startswith("predictor")
    predictor.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_gpu_answers_as_the_processor_does_whatever_the_batch(models: Path, count: int) -> None:
    levels = [int(level) for level in np.linspace(0, 255, count)]
    on_cpu = scored(load(models, precision="fp32"), *levels)
    predictor = load_predictor(Settings(models_dir=models, device="cuda", precision="fp32"))
    on_gpu = scored(predictor, *levels)
    assert [answer.probability for answer in on_gpu] == pytest.approx([a.probability for a in on_cpu], abs=1e-3)
