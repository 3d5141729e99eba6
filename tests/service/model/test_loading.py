from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import ModelFileError
from service.model.card import Manifest, Precision
from service.model.choice import possible_precisions
from service.model.file import read_manifest
from service.model.loading import LoadOptions, load_predictor
from service.model.prediction import NetworkPrediction
from service.model.predictor import Predictor
from tests.support.networks.tiny import (
    TinyClassifier,
    TinyNetwork,
    classifier_card,
    even,
    tiny_card,
    write_manifest,
    write_models,
)


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_every_precision_passes_the_self_check_or_is_refused_in_one_line(models: Path, wanted: str) -> None:
    predictor = load(models, precision=wanted)
    assert predictor.precision == wanted
    (answer,) = predictor.predict_now([even(128)])
    assert isinstance(answer, NetworkPrediction)
    assert answer.probability == pytest.approx(0.5, abs=0.1)


CUDA = torch.device("cuda")


def load(folder: Path, **options: Any) -> Predictor:
    return load_predictor(LoadOptions(folder, device="cpu", **options))


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

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.maps(slices)
        return {"probability": maps.mean((1, 2)) * float("nan"), "heatmap": maps}


def test_a_model_that_answers_nan_to_its_self_check_is_refused(tmp_path: Path) -> None:
    write_models(tmp_path, classifier_card(), NanNetwork())
    assert "finite" in refusal(tmp_path)


class RaisingNetwork(TinyNetwork):
    """Wants another input than its card says."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.conv(slices.to(self.conv.weight.dtype).repeat(1, 3, 1, 1)).mean(1)
        return {"probability": maps.mean((1, 2)), "heatmap": maps}


def test_a_model_that_cannot_be_run_is_refused_in_one_line(tmp_path: Path) -> None:
    row = write_models(tmp_path, network=RaisingNetwork())
    assert row.name in refusal(tmp_path)


def test_a_model_without_the_score_of_a_check_on_its_card_is_refused(tmp_path: Path) -> None:
    row = write_models(tmp_path, tiny_card(), TinyClassifier())
    message = refusal(tmp_path)
    assert row.name in message
    assert "no output 'no_lungs'; its outputs are heatmap, probability" in message


def test_a_model_without_lungs_is_loaded_as_one(models: Path, tmp_path: Path) -> None:
    write_models(tmp_path, classifier_card(), TinyClassifier())
    assert load(models).has_lungs
    assert not load(tmp_path).has_lungs


def test_a_precision_without_a_tolerance_is_refused(tmp_path: Path) -> None:
    card = tiny_card()
    check = card.self_check.model_copy(update={"tolerance": {"fp16": 0.02}})
    write_models(tmp_path, card.model_copy(update={"self_check": check}))
    assert "tolerance" in refusal(tmp_path, precision="fp32")


def test_a_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    write_manifest(tmp_path, row.model_copy(update={"sha256": "0" * 64}))
    assert row.sha256 in refusal(tmp_path)


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """A models folder with an int8 and an fp16 file, in this order."""
    rows = [
        write_models(tmp_path, tiny_card().model_copy(update={"precision": precision}))
        for precision in ("int8", "fp16")
    ]
    write_manifest(tmp_path, *rows)
    return tmp_path


def set_speed(monkeypatch: pytest.MonkeyPatch, **milliseconds: float) -> list[tuple[Precision, ...]]:
    """Make precisions as fast as told; return a list that fills with what was compared."""
    compared: list[tuple[Precision, ...]] = []

    def measure(precisions: tuple[Precision, ...]) -> dict[Precision, float]:
        compared.append(precisions)
        return {precision: milliseconds[precision] for precision in precisions}

    monkeypatch.setattr("service.model.choice.measure_precisions", measure)
    return compared


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ({"int8": 2.0, "bf16": 4.0, "fp32": 9.0}, "int8"),
        ({"int8": 2.0, "bf16": 1.5, "fp32": 9.0}, "bf16"),
        ({"int8": 12.0, "bf16": 10.0, "fp32": 9.0}, "fp32"),
    ],
)
def test_a_cpu_serves_the_precision_that_was_measured_fastest(
    two_files: Path, monkeypatch: pytest.MonkeyPatch, milliseconds: dict[str, float], expected: str
) -> None:
    monkeypatch.setattr("service.model.choice.has_native_bf16", lambda _: True)
    compared = set_speed(monkeypatch, **milliseconds)
    predictor = load(two_files)
    assert predictor.precision == expected
    assert predictor.card.precision == ("int8" if expected == "int8" else "fp16")
    assert list(predictor.choice.milliseconds.items()) == sorted(milliseconds.items(), key=lambda item: item[1])
    for wanted in ("fp32", "int8"):
        other = load(two_files, precision=wanted)
        assert (other.precision, other.choice.milliseconds) == (wanted, {}), "the setting overrules the choice"
    assert compared == [("int8", "bf16", "fp32")], "nothing is measured without a choice"


def test_int8_is_not_compared_where_torch_has_no_kernels_for_it(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.model.choice.has_native_bf16", lambda _: False)
    monkeypatch.setattr("service.model.choice.has_int8", lambda: False)
    assert load(two_files).precision == "fp32"


def test_the_next_fastest_precision_is_taken_if_a_self_check_fails(
    two_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.model.choice.has_native_bf16", lambda _: True)
    set_speed(monkeypatch, int8=2.0, bf16=4.0, fp32=9.0)
    rows = [
        write_models(two_files, tiny_card(probability=0.99).model_copy(update={"precision": "int8"})),
        write_models(two_files, tiny_card()),
    ]
    write_manifest(two_files, *rows)
    predictor = load(two_files)
    assert predictor.precision == "bf16"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "covidct"]
    assert "tiny.int8.pt: self-check failed" in line
    assert line.endswith("trying the next fastest precision")
    assert "self-check failed" in refusal(two_files, precision="int8"), "a named precision is not replaced"


def test_a_damaged_file_stops_the_start_although_another_could_be_used(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_speed(monkeypatch, int8=2.0, bf16=4.0, fp32=9.0)
    (two_files / "tiny.int8.pt").write_bytes(b"damaged")
    assert "tiny.int8.pt: SHA-256" in refusal(two_files)


def test_all_self_checks_failing_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.model.choice.has_native_bf16", lambda _: True)
    set_speed(monkeypatch, bf16=4.0, fp32=9.0)
    write_models(tmp_path, tiny_card(probability=0.99))
    assert "in fp32 on cpu" in refusal(tmp_path), "the last one that was tried"


def test_a_folder_with_int8_alone_is_served_in_it_and_in_nothing_else(tmp_path: Path) -> None:
    write_models(tmp_path, tiny_card().model_copy(update={"precision": "int8"}))
    assert load(tmp_path).precision == "int8"
    assert "precision bf16" in refusal(tmp_path, precision="bf16")


def test_a_torch_that_cannot_tell_its_instruction_sets_does_not_try_bf16(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    compared = set_speed(monkeypatch, int8=2.0, fp32=1.0)
    assert load(two_files).precision == "fp32"
    assert compared == [("int8", "fp32")]


def test_a_gpu_computes_in_half_precision_unless_told_otherwise(two_files: Path) -> None:
    manifest = read_manifest(two_files)
    assert possible_precisions("auto", CUDA, manifest) == ["fp16"]
    assert possible_precisions("fp32", CUDA, manifest) == ["fp32"]


def test_int8_is_refused_where_there_is_no_such_file(models: Path) -> None:
    assert refusal(models, precision="int8") == (
        "precision int8: no file of the manifest computes in it; stored is fp16"
    )


def test_int8_is_refused_on_a_gpu(two_files: Path) -> None:
    with pytest.raises(ModelFileError, match="int8 files compute on a CPU, not on cuda"):
        possible_precisions("int8", CUDA, read_manifest(two_files))


def test_a_manifest_that_says_int8_of_an_fp16_file_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, write_models(tmp_path).model_copy(update={"precision": "int8"}))
    assert "its card says fp16; it can't compute in int8" in refusal(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line_that_names_the_setting(models: Path) -> None:
    with pytest.raises(ModelFileError, match="device cuda") as caught:
        load_predictor(LoadOptions(models, device="cuda"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As during a release: the old manifest was read, then the old file is gone and a new manifest is in its place."""
    old = write_models(tmp_path)

    def replace_then_read(folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        if (folder / old.name).is_file() and manifest.files == (old,):
            (folder / old.name).rename(folder / "new.fp16.pt")
            write_manifest(folder, old.model_copy(update={"name": "new.fp16.pt"}))
        return manifest

    monkeypatch.setattr("service.model.choice.read_manifest", replace_then_read)
    predictor = load_predictor(LoadOptions(tmp_path, "cpu", "fp32"))
    assert predictor.card.name == "tiny"
    predictor.close()
    (tmp_path / "new.fp16.pt").unlink()
    with pytest.raises(ModelFileError, match=r"new\.fp16\.pt: can't read the model file"):
        load_predictor(LoadOptions(tmp_path, "cpu", "fp32"))
