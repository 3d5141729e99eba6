"""Triton's own HTTP client against the real service."""

from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.support.networks.tiny import INPUT_SIZE
from tests.support.processes.client import png
from tests.support.processes.server import Server

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def expected(server: Server, *levels: int) -> list[float]:
    answers = [httpx2.post(f"{server.url}/predict", files={"image": png(level)}).json() for level in levels]
    return [answer["probability"] for answer in answers]


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "0.0.1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
    assert client.get_model_metadata("tiny")["inputs"][1]["shape"] == [-1, 1, -1, -1]


def test_configuration_statistics_and_repository(client: Any) -> None:
    for version in ("", "0.0.1"):
        config = client.get_model_config("tiny", version)
        assert config["input"][1] == {
            "name": "slice",
            "data_type": "TYPE_UINT8",
            "dims": [-1, 1, -1, -1],
            "optional": True,
        }
        outputs = client.get_model_metadata("tiny", version)["outputs"]
        assert [(item["name"], item["dims"]) for item in config["output"]] == [
            (item["name"], item["shape"]) for item in outputs
        ]
        (row,) = client.get_inference_statistics("tiny", version)["model_stats"]
        assert row["inference_stats"]["compute_infer"]["count"] == row["inference_count"]
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "tiny"
    assert client.get_model_repository_index() == [{"name": "tiny", "version": "0.0.1", "state": "READY", "reason": ""}]
    with pytest.raises(triton.InferenceServerException, match="The model served here is 'tiny'"):
        client.get_model_config("other")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_slices(server: Server, client: Any, binary_in: bool, binary_out: bool | None) -> None:
    slices = np.stack([np.full((1, INPUT_SIZE, INPUT_SIZE), level, np.uint8) for level in (60, 220)])
    tensor = triton.InferInput("slice", list(slices.shape), "UINT8")
    tensor.set_data_from_numpy(slices, binary_data=binary_in)
    names = ("probability", "label", "out_of_distribution", "heatmap", "lung_involvement")
    outputs = (
        None if binary_out is None else [triton.InferRequestedOutput(item, binary_data=binary_out) for item in names]
    )
    result = client.infer("tiny", [tensor], outputs=outputs, request_id="7")
    assert result.as_numpy("probability").tolist() == pytest.approx(expected(server, 60, 220), abs=1e-6)
    assert result.as_numpy("heatmap").shape == (2, 4, 4)
    assert result.as_numpy("out_of_distribution").dtype == np.float32
    assert result.as_numpy("lung_involvement").shape == (2, 3)
    labels = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy("label")]
    assert labels == ["NonCOVID", "COVID"]
    assert result.get_response()["id"] == "7"


def test_files(server: Server, client: Any) -> None:
    files = np.array([png(60), png(220)], dtype=np.object_)
    tensor = triton.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(files)
    result = client.infer("tiny", [tensor], model_version="0.0.1")
    assert result.as_numpy("probability").tolist() == pytest.approx(expected(server, 60, 220), abs=1e-6)


def test_errors_are_the_clients_own(client: Any) -> None:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"text"], dtype=np.object_))
    with pytest.raises(triton.InferenceServerException, match="not an image of a supported type"):
        client.infer("tiny", [tensor])
    with pytest.raises(triton.InferenceServerException, match="The model served here is 'tiny'"):
        client.infer("other", [tensor])
