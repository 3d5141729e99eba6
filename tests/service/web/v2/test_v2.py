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

from tests.support.networks.tiny import INPUT_SIZE, TinyClassifier, classifier_card, write_models
from tests.support.processes.client import labelled, png, predict, samples, serve

pytestmark = pytest.mark.anyio

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
        assert (await client.get("/v2")).json()["extensions"] == [
            "binary_tensor_data",
            "model_configuration",
            "statistics",
        ]
        body = (await client.get("/v2/models/tiny")).json()
        assert body == (await client.get("/v2/models/tiny/versions/0.0.1")).json()
    assert (body["name"], body["versions"]) == ("tiny", ["0.0.1"])
    assert {entry["name"]: entry["shape"] for entry in body["inputs"]} == {"image": [-1], "slice": [-1, 1, -1, -1]}
    assert {entry["name"]: (entry["datatype"], entry["shape"]) for entry in body["outputs"]} == {
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
    outputs = {entry["name"]: entry for entry in body["outputs"]}
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
        described = [entry["name"] for entry in (await client.get("/v2/models/tiny")).json()["outputs"]]
        answered = [entry["name"] for entry in (await infer(client, tensor())).json()["outputs"]]
        refused = await infer(client, tensor(), outputs=[{"name": "lung_fraction"}])
    assert described == answered == ["probability", "label", "threshold", "out_of_distribution", "heatmap"]
    assert "Unknown output 'lung_fraction'" in error(refused, 400)


async def test_an_image_that_fails_a_check_fails_the_request_or_is_flagged(models: Path) -> None:
    dark = tensor(data=[2] * INPUT_SIZE**2)
    async with serve(models) as client:
        assert "No lungs were found" in error(await infer(client, dark), 422)
    async with serve(models, out_of_distribution="flag") as client:
        outputs = {entry["name"]: entry["data"] for entry in (await infer(client, dark)).json()["outputs"]}
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
    assert [entry["name"] for entry in body["outputs"]] == ["probability"]
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
        ({"shape": [1, 3, 64, 64]}, "[N, 1, height, width]"),
        ({"shape": [1, 64, 64]}, "[N, 1, height, width]"),
        ({"shape": [0, 1, 64, 64], "data": []}, "[N, 1, height, width]"),
        ({"shape": [-1, 1, 64, 64]}, "[N, 1, height, width]"),
        ({"shape": [1, 1, -64, -64]}, "[N, 1, height, width]"),
        ({"data": ROW[1:]}, "4095 values"),
        ({"data": [*ROW[1:], 256]}, "0 to 255"),
        ({"data": [*ROW[1:], 0.5]}, "0 to 255"),
        ({"data": [*ROW[1:], True]}, "0 to 255"),
        ({"data": None}, "send either data"),
        ({"parameters": {"binary_data_size": 4}}, "binary_data_size is 4"),
        ({"parameters": {"binary_data_size": "4"}}, "inputs.0.parameters.binary_data_size"),
        ({"parameters": {"binary_data_size": True}}, "inputs.0.parameters.binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory"),
        ({"name": "image"}, "send BYTES"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}, "element 0 of data"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["\u00e9"]}, "element 0 of data"),
        ({"name": "image", "datatype": "BYTES", "shape": [2], "data": ["aaaa", None]}, "element 1 of data"),
        ({"name": "image", "datatype": "BYTES", "shape": [1], "data": [1234]}, "element 0 of data"),
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


@pytest.mark.parametrize(
    "data",
    [
        "[" + "[]," * 100_000 + "[]]",
        "[" + "{}," * 100_000 + "{}]",
        "[" + "7," * 3_000_001 + "7]",
        '[{"a":1' + ',"b":1' * 100_000 + "}]",
    ],
)
async def test_json_that_takes_long_to_parse_is_refused_unparsed(models: Path, data: str) -> None:
    body = json.dumps({"inputs": [tensor(data=[])]}).replace("[]}", data + "}")
    async with serve(models) as client:
        assert "as one flat list, or better as binary data" in error(await client.post(INFER, content=body), 400)


async def test_an_output_is_asked_for_a_few_times_only(models: Path) -> None:
    """Each is computed and sent again."""
    async with serve(models) as client:
        answer = await infer(client, tensor(), outputs=[{"name": "heatmap"}] * 17)
        assert "outputs: List should have at most 16 items" in error(answer, 400)


async def test_elements_that_end_beyond_their_bytes_are_an_error(models: Path) -> None:
    for data in (b"\x01", struct.pack("<I", 9) + b"short"):
        parameters = {"binary_data_size": len(data)}
        inputs = [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": parameters}]
        header = json.dumps({"inputs": inputs}).encode()
        async with serve(models) as client:
            length = {"Inference-Header-Content-Length": str(len(header))}
            assert "beyond" in error(await client.post(INFER, content=header + data, headers=length), 400)


@pytest.mark.parametrize("length", ["99999999", "-1", "x", "9" * 5000])
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


@pytest.mark.parametrize("value", ["false", 0, [], {}])
async def test_whether_an_output_is_binary_is_true_or_false(models: Path, value: object) -> None:
    async with serve(models) as client:
        whole = await infer(client, tensor(), parameters={"binary_data_output": value})
        assert "parameters.binary_data_output" in error(whole, 400)
        one = await infer(client, tensor(), outputs=[{"name": "label", "parameters": {"binary_data": value}}])
        assert "outputs.0.parameters.binary_data" in error(one, 400)


async def test_parameters_that_are_null_are_absent(models: Path) -> None:
    async with serve(models) as client:
        outputs = [{"name": "probability", "parameters": None}]
        response = await infer(client, tensor(parameters=None), outputs=outputs, parameters=None)
    assert response.status_code == 200
    assert len(response.json()["outputs"][0]["data"]) == 1


@pytest.mark.parametrize(("height", "width"), [(100, 150), (64, 64), (16, 200)])
async def test_a_slice_tensor_of_any_size_is_resampled_like_a_file(models: Path, height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(100, 256, (height, width), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    async with serve(models) as client:
        sent = tensor(shape=[1, 1, height, width], data=pixels.ravel().tolist())
        outputs = {entry["name"]: entry["data"] for entry in (await infer(client, sent)).json()["outputs"]}
        expected = (await predict(client, file.getvalue())).json()
    assert outputs["probability"] == pytest.approx([expected["probability"]], abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"), [([1, 1, 8, 8], "8 x 8 pixels"), ([1, 1, 100, 101], "too many pixels: 101 x 100")]
)
async def test_a_slice_tensor_has_the_limits_of_a_file(models: Path, shape: list[int], words: str) -> None:
    async with serve(models, max_pixels=10_000) as client:
        assert words in error(await infer(client, tensor(shape=shape)), 422)


async def test_the_error_of_one_row_of_several_names_it(models: Path) -> None:
    files = [base64.b64encode(data).decode() for data in (png(40), b"text", png(220))]
    dark = [200] * INPUT_SIZE**2 + [2] * INPUT_SIZE**2
    async with serve(models) as client:
        image = {"name": "image", "shape": [3], "datatype": "BYTES", "data": files}
        assert error(await infer(client, image), 415).startswith("Row 1, counted from 0: The content is not an image")
        slices = tensor(shape=[2, 1, INPUT_SIZE, INPUT_SIZE], data=dark)
        assert error(await infer(client, slices), 422).startswith("Row 1, counted from 0: No lungs")


@pytest.mark.parametrize("path", ["/v2/", "/v2/health/live/", "/v2/models/tiny/ready/"])
async def test_a_slash_at_the_end_is_a_404_in_the_protocols_form(models: Path, path: str) -> None:
    async with serve(models) as client:
        assert "No such route" in error(await client.get(path), 404)


async def test_head_is_counted_under_the_route_of_get(models: Path) -> None:
    async with serve(models) as client:
        await client.head("/v2/health/live")
        counts = await samples(client)
    assert counts[labelled("covidct_requests_total", route="/v2/health/live", method="HEAD", status="200")] == 1


async def test_statistics_count_slices_and_batches_of_all_routes(models: Path) -> None:
    async with serve(models) as client:
        (before,) = (await client.get("/v2/models/tiny/stats")).json()["model_stats"]
        assert (before["inference_count"], before["last_inference"]) == (0, 0)
        await predict(client, png())
        await infer(client, tensor(shape=[2, 1, INPUT_SIZE, INPUT_SIZE], data=ROW * 2))
        (row,) = (await client.get("/v2/models/stats")).json()["model_stats"]
        assert [row] == (await client.get("/v2/models/tiny/versions/0.0.1/stats")).json()["model_stats"]
    assert (row["name"], row["version"], row["inference_count"], row["execution_count"]) == ("tiny", "0.0.1", 3, 3)
    assert row["last_inference"] > 1_700_000_000_000
    times = row["inference_stats"]
    assert times["success"]["count"] == 3
    assert times["success"]["ns"] == pytest.approx(times["queue"]["ns"] + times["compute_infer"]["ns"], abs=2)
    assert times["fail"] == {"count": 0, "ns": 0}


async def test_problems_elsewhere_keep_their_form(models: Path) -> None:
    async with serve(models) as client:
        assert (await client.get("/v2x")).headers["content-type"] == "application/problem+json"
        assert Image.open(io.BytesIO(png())).size == (64, 64)
