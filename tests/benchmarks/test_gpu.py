"""The benchmark for a GPU, tried on a CPU with a network of a few hundred weights."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu


def test_it_measures_network_and_service_and_writes_one_file(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_CONNECTIONS", (1, 4))
    file = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--seconds", "0.4", "--largest-batch", "4"]
    assert gpu.main([*arguments, "--models", str(models), "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert (results["card"], results["precision"], results["model"]) == ("cpu", "fp32", "tiny 0.0.1")
    assert set(results["bare_rates"]) == {"1", "2", "4"}
    assert all(rate > 0 for rate in results["bare_rates"].values())
    assert [load["connections"] for load in results["loads"]] == [1, 4]
    for load in results["loads"]:
        assert load["failed"] == 0
        assert load["responses"] >= load["connections"]
        assert 0 < load["p50_ms"] <= load["p99_ms"]


def test_without_a_web_framework_the_network_alone_is_measured(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    file = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--seconds", "0.2", "--largest-batch", "1"]
    assert gpu.main([*arguments, "--models", str(models), "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert (results["loads"], results["note"]) == ([], "the service was not measured: uvicorn not installed here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--json", str(tmp_path / "gpu.json")]) == 1
    assert "no GPU" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()
