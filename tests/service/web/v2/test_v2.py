import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.support.client import labelled, png, predict, samples, serve
from tests.support.tiny import INPUT_SIZE, TinyClassifier, classifier_card, write_models

pytestmark = pytest.mark.anyio


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Its own: the tests of reloading give the shared folder's model another version."""
    write_models(tmp_path)
    return tmp_path


INFER = "/v2/models/tiny/infer"
ROW = [200] * INPUT_SIZE**2


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "slice", "shape": [1, 1, INPUT_SIZE, INPUT_SIZE], "datatype": "UINT8", "data": ROW} | changes


async def infer(client: httpx2.AsyncClient, *inputs: dict[str, Any], **more: Any) -> httpx2.Response:
    return await client.post(INFER, json={"inputs": list(inputs), **more})


def error(response: httpx2.Response, status: int) -> str:
    """The body of a response that must be an error in the protocol's form."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["error"])


async def test_server_and_model_tell_about_themselves(models: Path) -> None:
    async with serve(models) as client:
        for path in (
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/tiny/ready",
            "/v2/models/tiny/versions/0.0.1/ready",
        ):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("/v2")).json()["extensions"] == ["binary_tensor_data"]
        body = (await client.get("/v2/models/tiny")).json()
        assert body == (await client.get("/v2/models/tiny/versions/0.0.1")).json()
    assert (body["name"], body["versions"]) == ("tiny", ["0.0.1"])
    assert {each["name"]: each["shape"] for each in body["inputs"]} == {"image": [-1], "slice": [-1, 1, 64, 64]}
    assert {each["name"]: (each["datatype"], each["shape"]) for each in body["outputs"]} == {
        "probability": ("FP32", [-1]),
        "label": ("BYTES", [-1]),
        "threshold": ("FP32", [-1]),
        "out_of_distribution": ("FP32", [-1]),
        "heatmap": ("FP32", [-1, -1, -1]),
        "lung_involvement": ("FP32", [-1, 3]),
        "lung_fraction": ("FP32", [-1]),
    }


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/tiny/versions/9", "/v2/models/other/ready", "/v2/no"])
async def test_unknown_names_are_errors_in_the_protocols_form(models: Path, path: str) -> None:
    async with serve(models) as client:
        assert error(await client.get(path), 404)


async def test_a_slice_tensor_gets_the_answer_that_predict_gives(models: Path) -> None:
    async with serve(models) as client:
        body = (await infer(client, tensor(), id="mine")).json()
        expected = (await predict(client, png(200))).json()
    outputs = {each["name"]: each for each in body["outputs"]}
    assert (body["id"], body["model_name"], body["model_version"]) == ("mine", "tiny", "0.0.1")
    assert outputs["probability"]["data"] == pytest.approx([expected["probability"]], abs=1e-6)
    assert outputs["label"] == {"name": "label", "shape": [1], "datatype": "BYTES", "data": [expected["label"]]}
    assert outputs["threshold"]["data"] == [expected["threshold"]]
    assert outputs["out_of_distribution"]["data"] == pytest.approx([expected["out_of_distribution"]["score"]], abs=1e-6)
    assert outputs["lung_involvement"]["shape"] == [1, 3]
    assert outputs["lung_involvement"]["data"] == list(expected["lung_involvement"].values())
    assert outputs["lung_fraction"]["data"] == [expected["lung_fraction"]]
    assert (outputs["heatmap"]["shape"], outputs["heatmap"]["datatype"]) == ([1, 4, 4], "FP32")


async def test_a_model_without_lungs_has_no_outputs_of_them(tmp_path: Path) -> None:
    write_models(tmp_path, classifier_card(), TinyClassifier())
    async with serve(tmp_path) as client:
        described = [each["name"] for each in (await client.get("/v2/models/tiny")).json()["outputs"]]
        answered = [each["name"] for each in (await infer(client, tensor())).json()["outputs"]]
        refused = await infer(client, tensor(), outputs=[{"name": "lung_fraction"}])
    assert described == answered == ["probability", "label", "threshold", "out_of_distribution", "heatmap"]
    assert "Unknown output 'lung_fraction'" in error(refused, 400)


async def test_an_image_that_fails_a_check_fails_the_request_or_is_flagged(models: Path) -> None:
    dark = tensor(data=[2] * INPUT_SIZE**2)
    async with serve(models) as client:
        assert "No lungs were found" in error(await infer(client, dark), 422)
    async with serve(models, out_of_distribution="flag") as client:
        outputs = {each["name"]: each["data"] for each in (await infer(client, dark)).json()["outputs"]}
    assert outputs["out_of_distribution"][0] > 1


async def test_nested_values_are_as_good_as_flat_ones(models: Path) -> None:
    nested = np.array(ROW).reshape(1, 1, INPUT_SIZE, INPUT_SIZE).tolist()
    async with serve(models) as client:
        flat, deep = [(await infer(client, tensor(data=data))).json()["outputs"] for data in (ROW, nested)]
    assert flat == deep


async def test_files_in_base64_are_read_and_resized(models: Path) -> None:
    files = [base64.b64encode(png(level, 120)).decode() for level in (40, 220)]
    async with serve(models) as client:
        image = {"name": "image", "shape": [2], "datatype": "BYTES", "data": files}
        body = (await infer(client, image, outputs=[{"name": "probability"}])).json()
        expected = [(await predict(client, png(level, 120))).json()["probability"] for level in (40, 220)]
    assert [each["name"] for each in body["outputs"]] == ["probability"]
    assert body["outputs"][0]["data"] == pytest.approx(expected, abs=1e-6)


async def test_binary_tensors_in_and_out(models: Path) -> None:
    files = b"".join(struct.pack("<I", len(data)) + data for data in (png(40), png(220)))
    parameters = {"binary_data_size": len(files)}
    asked = {
        "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "parameters": parameters}],
        "outputs": [
            {"name": "out_of_distribution"},
            {"name": "probability", "parameters": {"binary_data": True}},
            {"name": "label", "parameters": {"binary_data": True}},
        ],
    }
    header = json.dumps(asked).encode()
    async with serve(models) as client:
        length = {"Inference-Header-Content-Length": str(len(header))}
        response = await client.post(INFER, content=header + files, headers=length)
        expected = [(await predict(client, png(level))).json()["probability"] for level in (40, 220)]
    assert response.headers["content-type"] == "application/octet-stream"
    at = int(response.headers["inference-header-content-length"])
    score, probability, label = json.loads(response.content[:at])["outputs"]
    assert len(score["data"]) == 2
    assert "data" not in probability
    assert probability["parameters"]["binary_data_size"] == 8
    assert np.frombuffer(response.content[at : at + 8], "<f4").tolist() == pytest.approx(expected, abs=1e-6)
    assert label["parameters"]["binary_data_size"] == len(response.content) - at - 8
    assert response.content[at + 8 :] == b"\x08\0\0\0NonCOVID\x05\0\0\0COVID"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "pixels"}, "Unknown input 'pixels'"),
        ({"datatype": "FP32"}, "send UINT8"),
        ({"shape": [1, 1, 8, 8]}, "takes [N, 1, 64, 64]"),
        ({"shape": [0, 1, 64, 64], "data": []}, "takes [N, 1, 64, 64]"),
        ({"shape": [-1, 1, 64, 64]}, "takes [N, 1, 64, 64]"),
        ({"data": ROW[1:]}, "4095 values"),
        ({"data": [*ROW[1:], 256]}, "0 to 255"),
        ({"data": [*ROW[1:], 0.5]}, "0 to 255"),
        ({"data": [*ROW[1:], True]}, "0 to 255"),
        ({"data": None}, "send either data"),
        ({"parameters": {"binary_data_size": 4}}, "binary_data_size is 4"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory"),
        ({"name": "image"}, "send BYTES"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}, "base64"),
        ({"name": "image", "datatype": "BYTES", "shape": [2], "data": ["aaaa"]}, "1 elements"),
    ],
)
async def test_a_tensor_that_does_not_fit_is_an_error_that_says_why(
    models: Path, changes: dict[str, Any], words: str
) -> None:
    async with serve(models) as client:
        assert words in error(await infer(client, tensor(**changes)), 400)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"inputs": []}', b"[" * 100_000, b"\xff", b'{"inputs": 3}'])
async def test_a_body_that_is_no_request_is_an_error(models: Path, body: bytes) -> None:
    async with serve(models) as client:
        assert "can't be read" in error(await client.post(INFER, content=body), 400)


async def test_elements_that_end_beyond_their_bytes_are_an_error(models: Path) -> None:
    for data in (b"\x01", struct.pack("<I", 9) + b"short"):
        parameters = {"binary_data_size": len(data)}
        inputs = [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": parameters}]
        header = json.dumps({"inputs": inputs}).encode()
        async with serve(models) as client:
            length = {"Inference-Header-Content-Length": str(len(header))}
            assert "beyond" in error(await client.post(INFER, content=header + data, headers=length), 400)


@pytest.mark.parametrize("length", ["99999999", "-1", "x"])
async def test_a_header_length_that_is_none_is_an_error(models: Path, length: str) -> None:
    async with serve(models) as client:
        response = await client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
        assert "Inference-Header-Content-Length" in error(response, 400)


async def test_an_image_that_cannot_be_used_fails_the_request_and_is_counted(models: Path) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(b"text").decode()]}
    async with serve(models) as client:
        assert "not an image" in error(await infer(client, image), 415)
        counts = await samples(client)
    assert counts[labelled("covidct_rejected_images_total", reason="unsupported_image_type")] == 1


async def test_limits_and_keys_hold_and_answer_in_the_protocols_form(models: Path) -> None:
    async with serve(models, max_body_bytes=1000, max_images_per_request=1, api_keys="a-key-of-16-chars") as client:
        assert "API keys" in error(await infer(client, tensor(data=[])), 401)
        client.headers["X-API-Key"] = "a-key-of-16-chars"
        assert "1000 bytes" in error(await infer(client, tensor()), 413)
        many = {"name": "image", "shape": [2], "datatype": "BYTES", "data": ["", ""]}
        assert "limit is 1" in error(await infer(client, many), 413)
        compressed = await client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
        assert "Content-Encoding" in error(compressed, 415)


async def test_unknown_outputs_and_parameters_are_errors(models: Path) -> None:
    async with serve(models) as client:
        assert "Unknown output" in error(await infer(client, tensor(), outputs=[{"name": "mask"}]), 400)
        wanted = [{"name": "probability", "parameters": {"classification": 1}}]
        assert "binary_data" in error(await infer(client, tensor(), outputs=wanted), 400)


async def test_problems_elsewhere_keep_their_form(models: Path) -> None:
    async with serve(models) as client:
        assert (await client.get("/v2x")).headers["content-type"] == "application/problem+json"
        assert Image.open(io.BytesIO(png())).size == (64, 64)
