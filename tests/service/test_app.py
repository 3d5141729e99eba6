import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.image import decode, to_input
from service.problems import MEDIA_TYPE
from service.schemas import DISCLAIMER
from service.settings import Settings
from tests.tiny import INPUT_SIZE, TinyNetwork, tiny_card, write_models
from tests.training.data_set import draw, png

BRIGHT, DARK = png(draw(label=1, seed=1, size=96)), png(draw(label=0, seed=2, size=96))
NOISE = png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)))


def post(client: TestClient, data: bytes, name: str = "scan.png") -> Response:
    return client.post("/predict", files={"image": (name, data, "image/png")})


def samples(client: TestClient) -> dict[str, float]:
    """Name and labels -> value, of everything that /metrics shows."""
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert response.headers["Content-Type"] == MEDIA_TYPE
    assert body["type"] == f"urn:covidct:problem:{code}"
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert body["title"]
    assert body["detail"]
    return body


def test_predict_answers_what_the_network_says_of_the_decoded_slice(client: TestClient) -> None:
    response = post(client, BRIGHT)
    assert response.status_code == 200
    body = response.json()
    batch = torch.from_numpy(to_input(decode(BRIGHT), INPUT_SIZE))[None]
    probability, score, _ = TinyNetwork().eval()(batch)
    assert body["probability"] == pytest.approx(probability.item(), abs=1e-3)
    assert body["out_of_distribution"]["score"] == pytest.approx(score.item(), abs=1e-3)
    assert body["label"] == ("COVID" if body["probability"] >= 0.5 else "NonCOVID")
    assert body["threshold"] == 0.5
    assert body["model"] == {"name": "tiny", "version": "0.0.1"}
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert set(body["timings_milliseconds"]) == {"read", "decode", "queue", "inference"}
    assert body["disclaimer"] == DISCLAIMER


def test_both_labels_are_reached(client: TestClient) -> None:
    white = png(Image.new("L", (64, 64), 250))
    assert post(client, white).json()["label"] == "COVID"
    assert post(client, DARK).json()["label"] == "NonCOVID"


def test_the_same_slice_in_another_file_format_gets_the_same_answer(client: TestClient) -> None:
    image = draw(label=1, seed=1, size=96)
    answers = set()
    for mode, file_format in (("L", "PNG"), ("RGBA", "PNG"), ("RGB", "BMP"), ("L", "TIFF")):
        file = io.BytesIO()
        image.convert(mode).save(file, file_format)
        answers.add(post(client, file.getvalue()).json()["probability"])
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        pytest.param(b"", 422, "empty_file", id="empty file"),
        pytest.param(b"I am a text file", 415, "unsupported_image_type", id="text named .png"),
        pytest.param(BRIGHT[: len(BRIGHT) // 2], 422, "damaged_image", id="truncated"),
        pytest.param(NOISE[:200_000], 413, "body_too_large", id="over the byte limit"),
        pytest.param(png(Image.new("L", (501, 500))), 422, "too_many_pixels", id="over the pixel limit"),
    ],
)
def test_a_file_that_can_not_be_used_is_a_problem_with_a_reason_and_the_next_one_is_fine(
    client: TestClient, data: bytes, status: int, code: str
) -> None:
    assert_problem(post(client, data), status, code)
    assert post(client, BRIGHT).status_code == 200
    shown = samples(client)
    assert shown[f'covidct_rejected_images_total{{"reason": "{code}"}}'] == 1
    assert shown[f'covidct_requests_total{{"method": "POST", "route": "/predict", "status": "{status}"}}'] == 1


FILE = ("scan.png", BRIGHT, "image/png")


@pytest.mark.parametrize(
    ("request_of", "status", "code", "words"),
    [
        pytest.param({}, 415, "unsupported_content_type", "curl -F image=@", id="no body"),
        pytest.param({"json": {"image": "x"}}, 415, "unsupported_content_type", "multipart/form-data", id="json"),
        pytest.param({"data": {"image": "x"}}, 415, "unsupported_content_type", "multipart/form-data", id="urlencoded"),
        pytest.param({"files": {"scan": FILE}}, 400, "missing_image", "the fields found: 'scan'", id="wrong field"),
        pytest.param({"files": {"image": (None, "text")}}, 400, "missing_image", "put an @", id="text field"),
        pytest.param(
            {"files": [("image", FILE), ("image", FILE)]}, 400, "several_images", "one slice a request", id="two files"
        ),
        pytest.param(
            {"files": [("image", ("a", b"x"))] * 40}, 400, "malformed_request", "Too many files", id="forty files"
        ),
        pytest.param(
            {"content": b"xyz", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "malformed_request",
            "boundary",
            id="no boundary",
        ),
        pytest.param(
            {"content": b"not a part", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            "malformed_request",
            "can't be read",
            id="another body than announced",
        ),
    ],
)
def test_a_form_that_is_not_one_file_in_the_field_image_is_a_problem(
    client: TestClient, request_of: dict[str, Any], status: int, code: str, words: str
) -> None:
    assert words in assert_problem(client.post("/predict", **request_of), status, code)["detail"]


def test_a_body_that_stops_in_the_middle_of_a_part_is_no_image(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + BRIGHT[:50]
    response = client.post("/predict", content=head, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code == 400
    assert response.headers["Content-Type"] == MEDIA_TYPE


def test_unknown_routes_and_methods_are_problems_and_share_one_metric_label(client: TestClient) -> None:
    assert_problem(client.get("/secret/path"), 404, "not_found")
    response = client.get("/predict")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
    client.request("BREW", "/coffee")
    shown = samples(client)
    assert shown['covidct_requests_total{"method": "GET", "route": "unmatched", "status": "404"}'] == 1
    assert shown['covidct_requests_total{"method": "other", "route": "unmatched", "status": "404"}'] == 1
    assert not any("secret" in name or "BREW" in name for name in shown)


def test_metrics_count_what_was_answered(client: TestClient) -> None:
    for data in (BRIGHT, DARK, DARK):
        assert post(client, data).status_code == 200
    shown = samples(client)
    assert shown['covidct_requests_total{"method": "POST", "route": "/predict", "status": "200"}'] == 3
    assert shown["covidct_probability_count{}"] == 3
    assert shown["covidct_batch_size_sum{}"] == 3
    assert sum(shown[f'covidct_predictions_total{{"label": "{label}"}}'] for label in ("COVID", "NonCOVID")) == 3
    for stage in ("read", "decode", "queue", "inference"):
        assert shown[f'covidct_stage_duration_seconds_count{{"stage": "{stage}"}}'] == 3
    assert shown["covidct_ready{}"] == 1
    assert shown["covidct_queue_depth{}"] == 0
    (info,) = [json.loads(name.removeprefix("covidct_model_info")) for name in shown if "model_info" in name]
    assert (info["name"], info["version"], info["precision"], info["device"]) == ("tiny", "0.0.1", "fp32", "cpu")


def test_model_shows_the_card(client: TestClient, tiny_models: Path) -> None:
    body = client.get("/model").json()
    assert body["card"] == tiny_card().model_dump(mode="json")
    assert body["sha256"] == json.loads((tiny_models / "metrics.json").read_text())["files"][0]["sha256"]
    assert (body["device"], body["precision"]) == ("cpu", "fp32")


def test_before_the_model_is_loaded_the_service_is_alive_but_not_ready(settings: Settings) -> None:
    client = TestClient(create_app(settings))  # not entered, so not started
    assert client.get("/health/live").json() == {"status": "ok"}
    response = client.get("/health/ready")
    assert_problem(response, 503, "not_ready")
    assert response.headers["Retry-After"] == "1"
    assert_problem(post(client, BRIGHT), 503, "not_ready")
    assert samples(client)["covidct_ready{}"] == 0


def test_once_it_is_loaded_the_service_is_ready(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}


def test_the_root_leads_to_the_documentation_of_the_api(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.url.path == "/docs"


def test_the_openapi_document_tells_of_the_form_the_problems_and_the_purpose(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert DISCLAIMER in document["info"]["description"]
    operation = document["paths"]["/predict"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["image"]
    assert form["properties"]["image"]["format"] == "binary"
    for status in ("400", "413", "415", "422", "500", "503", "504"):
        assert list(operation["responses"][status]["content"]) == [MEDIA_TYPE]


@pytest.mark.parametrize(("sent", "kept"), [("abc-123", True), ("x" * 65, False), ("a b", False), ("{}", False)])
def test_a_clients_request_id_is_kept_only_if_it_is_harmless(client: TestClient, sent: str, kept: bool) -> None:
    answered = client.get("/health/live", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    assert (answered == sent) is kept
    assert answered


def test_an_upload_never_touches_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette's parser would put a file of more than 1 MB on the disk; this one is beyond that."""

    def never(*_: object) -> None:
        pytest.fail("an upload was written to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", never)
    settings = Settings(models_dir=client.app.state.serving.settings.models_dir, device="cpu", threads=1)  # type: ignore[attr-defined]
    big = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500), dtype=np.uint8)).save(big, "PNG")
    assert len(big.getvalue()) > 2_000_000
    with TestClient(create_app(settings)) as client_without_small_limits:
        assert post(client_without_small_limits, big.getvalue()).status_code == 200


def test_logs_name_the_request_but_nothing_of_the_upload(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        response = post(client, BRIGHT, name="MARKER-patient-name.png")
        post(client, b"MARKER text", name="MARKER.png")
    records = [record.__dict__["fields"] for record in caplog.records if record.name == "covidct.request"]
    assert [record["status"] for record in records] == [200, 415]
    assert records[0]["request_id"] == response.headers["X-Request-ID"]
    assert records[0]["route"] == "/predict"
    assert records[0]["bytes"] > len(BRIGHT)
    assert records[1]["code"] == "unsupported_image_type"
    assert "MARKER" not in "".join(str(record.__dict__) for record in caplog.records)


BLACK = png(Image.new("L", (64, 64), 0))


def test_an_image_unlike_a_chest_ct_is_flagged_by_default(client: TestClient) -> None:
    body = post(client, BLACK).json()
    assert body["out_of_distribution"]["flagged"] is True
    assert samples(client)["covidct_ood_flags_total{}"] == 1


def test_an_image_unlike_a_chest_ct_is_refused_where_the_operator_says_so(settings: Settings) -> None:
    refusing = settings.model_copy(update={"out_of_distribution": "refuse"})
    with TestClient(create_app(refusing)) as client:
        assert "does not look like a chest CT" in assert_problem(post(client, BLACK), 422, "not_a_chest_ct")["detail"]
        assert samples(client)["covidct_ood_refusals_total{}"] == 1
        assert post(client, BRIGHT).status_code == 200


class NotANumber(TinyNetwork):
    """Answers NaN to bright slices, as a network with an overflow does."""

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = slices.to(self.conv.weight.dtype).mean((1, 2, 3))
        probability = torch.where(maps > 200, maps * float("nan"), 0.25 + 0 * maps).float()
        return probability, 0 * probability, slices.float().mean(1)


def test_nan_from_the_network_is_a_500_with_a_reason_and_never_in_an_answer(tmp_path: Path, settings: Settings) -> None:
    write_models(tmp_path, tiny_card(probability=0.25), NotANumber())
    with TestClient(create_app(settings.model_copy(update={"models_dir": tmp_path}))) as client:
        response = post(client, png(Image.new("L", (64, 64), 250)))
        assert "NaN" not in response.text
        assert_problem(response, 500, "not_finite")
        assert post(client, DARK).json()["probability"] == 0.25


class Broken(TinyNetwork):
    """Passes its self-check, then raises for white slices."""

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if bool((slices > 250).all()):
            raise RuntimeError("a path/inside.py of ours")
        maps = slices.to(self.conv.weight.dtype).mean((1, 2, 3)).float()
        return 0.25 + 0 * maps, 0 * maps, slices.float().mean(1)


def test_an_unexpected_error_is_a_500_that_shows_nothing_of_the_inside(tmp_path: Path, settings: Settings) -> None:
    write_models(tmp_path, tiny_card(probability=0.25), Broken())
    with TestClient(create_app(settings.model_copy(update={"models_dir": tmp_path}))) as client:
        response = post(client, png(Image.new("L", (64, 64), 255)))
        assert_problem(response, 500, "internal_error")
        assert "inside.py" not in response.text
        assert "Traceback" not in response.text
        assert post(client, DARK).status_code == 200
