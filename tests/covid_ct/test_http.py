import io
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from covid_ct import (
    LUNG,
    Client,
    ClientError,
    LungInvolvement,
    Prediction,
    ProblemError,
    Retry,
    SourceError,
    UnreachableError,
    Window,
    http,
)
from covid_ct.errors import AnswerError, UsageError
from covid_ct.files.images import file_bytes
from service.api_study import StudyProgress
from tests.support.files.dicoms import ct, phantom
from tests.support.processes.client import png
from tests.support.processes.server import Server, free_port

ANSWER: dict[str, Any] = {
    "request_id": "r1",
    "probability": 0.75,
    "label": "COVID",
    "threshold": 0.5,
    "operating_point": "balanced",
    "model": {"name": "tiny", "version": "1", "new": 1},
    "lung_involvement": {"both": 0.1, "left": 0.2, "right": 0.05},
    "lung_fraction": 0.3,
    "out_of_distribution": {"score": 0.4, "threshold": 1.0, "flagged": False, "reason": None},
    "timings_milliseconds": {"read": 0.1, "decode": 1.0, "queue": 0.0, "inference": 20.0},
    "something_new": [],
}


PICTURES = {"slice_png_base64": "iVBORw0KGgo=", "overlay_png_base64": "iVBORw0KGgo="}
"""The first bytes of a PNG."""


class Script:
    """A service that gives these answers one after another, and remembers what it was asked."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        return self.answers.pop(0)


def busy(after: str | None = "3") -> httpx2.Response:
    headers = {} if after is None else {"Retry-After": after}
    problem = {
        "type": "urn:x",
        "title": "Busy",
        "status": 503,
        "code": "queue_full",
        "detail": "full",
        "request_id": "r2",
    }
    return httpx2.Response(503, json=problem, headers=headers)


def answering(*answers: httpx2.Response, **options: Any) -> tuple[Client, Script, list[float]]:
    script, slept = Script(*answers), list[float]()
    return Client(transport=httpx2.MockTransport(script), sleep=slept.append, **options), script, slept


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "pillow", "array", "slice", "dicom"])
def test_every_kind_of_image_gets_the_same_answer_from_a_real_service(
    kind: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    array = np.full((64, 64), 200, np.uint8)
    images: dict[str, Any] = {
        "path": tmp_path / "a.png",
        "text": str(tmp_path / "a.png"),
        "bytes": png(200),
        "pillow": Image.fromarray(array),
        "array": array,
        "slice": array[np.newaxis],
        "dicom": ct(array),
    }
    with Client(server.url) as client:
        answer = client.predict(images[kind])
        assert answer.probability == client.predict(png(200)).probability
        assert answer.model.name == "tiny"
        assert client.ready()
        assert client.model().card.name == "tiny"


def test_a_refusal_is_a_typed_exception_and_does_not_stop_the_others(server: Server) -> None:
    with Client(server.url) as client:
        first, second, third = client.predict_many([png(40), b"no image", png(240)])
        assert isinstance(first, Prediction)
        assert isinstance(third, Prediction)
        assert first.probability < third.probability
        assert isinstance(second, ProblemError)
        assert (second.status, second.code) == (415, "unsupported_image_type")
        assert second.request_id


def test_a_missing_or_unreadable_image_is_one_error_among_the_results(server: Server, tmp_path: Path) -> None:
    images: list[Any] = [
        png(40),
        tmp_path / "missing.png",
        "a\0b.png",
        np.zeros((9, 9), np.float32),
        tmp_path,
        png(240),
    ]
    with Client(server.url) as client:
        first, *failed, last = client.predict_many(images)
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    for error in failed:
        assert isinstance(error, SourceError)
        assert error.code == "unreadable_image"
    assert "missing.png" in str(failed[0])
    assert "float32" in str(failed[2])


@pytest.mark.parametrize("url", ["127.0.0.1:{port}", "localhost:{port}", " http://127.0.0.1:{port}/ "])
def test_an_address_needs_no_scheme(url: str, server: Server) -> None:
    with Client(url.format(port=server.port)) as client:
        assert client.ready()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://localhost",
        "localhost:http",
        "http://[::1",
        "file:///a",
        "http://a..b",
        "http://" + "a" * 70,
    ],
)
def test_what_is_no_address_is_one_line(url: str) -> None:
    with pytest.raises(ClientError, match="is not the address of a service"):
        Client(url)


def test_the_operating_point_goes_along_and_comes_back(server: Server) -> None:
    with Client(server.url) as client:
        usual, chosen = client.predict(png(110)), client.predict(png(110), operating_point="screening")
        assert (usual.operating_point, usual.threshold, usual.label) == ("balanced", 0.5, "NonCOVID")
        assert (chosen.operating_point, chosen.threshold, chosen.label) == ("screening", 0.3, "COVID")
        assert client.explain(png(110), operating_point="screening").label == "COVID"
        (problem,) = client.predict_many([png(110)], operating_point="sharp")
        assert isinstance(problem, ProblemError)
        assert "its operating points: balanced, screening" in problem.detail
        assert client.model().operating_point == "balanced"


def test_a_busy_service_is_asked_again_after_the_time_it_names() -> None:
    client, script, slept = answering(busy("3"), busy(None), busy("soon"), httpx2.Response(200, json=ANSWER))
    assert client.predict(png()).probability == 0.75
    assert slept == [3.0, 1.0, 1.0]
    assert all(b"PNG" in request.content for request in script.requests)


def test_retries_are_bounded_in_number_and_in_time() -> None:
    client, script, slept = answering(*[busy("9999")] * 9, retry=Retry(attempts=3, longest_seconds=7))
    with pytest.raises(ProblemError, match="queue_full"):
        client.predict(png())
    assert len(script.requests) == 3
    assert slept == [7.0, 7.0]


def test_the_key_goes_along_and_the_files_name_does_not(tmp_path: Path) -> None:
    (tmp_path / "patient name.png").write_bytes(png())
    client, script, _ = answering(httpx2.Response(200, json=ANSWER), api_key="secret")
    client.predict(tmp_path / "patient name.png")
    assert script.requests[0].headers["x-api-key"] == "secret"
    assert b"patient" not in script.requests[0].content


def test_nobody_listening_and_strangers_are_told_apart() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.ready()
        with pytest.raises(UnreachableError):
            client.predict(png())
    for stranger in (
        httpx2.Response(200, text="hello"),
        httpx2.Response(404, json={"no": 1}),
        httpx2.Response(200, json=[]),
    ):
        client, _, _ = answering(stranger)
        with pytest.raises(AnswerError):
            client.predict(png())


def test_explain_brings_the_map_and_the_overlay_of_a_real_service(server: Server) -> None:
    with Client(server.url) as client:
        explanation = client.explain(png(side=96))
        prediction = client.predict(png(side=96))
    assert explanation.heatmap.to_numpy().shape == (4, 4)  # the tiny network's
    assert explanation.probability == prediction.probability
    assert explanation.lungs is not None
    assert explanation.lungs.to_numpy().shape == (4, 4)
    assert explanation.lung_involvement == prediction.lung_involvement == LungInvolvement(both=1.0, left=1.0, right=1.0)
    for picture in (explanation.slice_png, explanation.overlay_png):
        assert Image.open(io.BytesIO(picture)).size == (96, 96)


@pytest.mark.parametrize("lungs", [True, False])
def test_the_outline_of_the_lungs_is_asked_for_by_name(lungs: bool) -> None:
    heatmap = {"width": 1, "height": 1, "values": [[0.5]]}
    body = ANSWER | {"heatmap": heatmap, "lungs": None, "lung_involvement": None} | PICTURES
    client, script, _ = answering(httpx2.Response(200, json=body))
    explanation = client.explain(png(), lungs=lungs)
    assert script.requests[0].url.params["lungs"] == str(lungs).lower()
    assert (explanation.lungs, explanation.lung_involvement) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "window", "telling"),
    [
        (np.zeros((3, 4, 5, 6), np.uint8), None, "uint8"),
        (np.zeros((4, 4), np.float32), None, "window=LUNG"),
        (np.zeros((4, 4), np.int16), None, "window=LUNG"),
        (np.zeros((4, 4, 3), np.int16), LUNG, "Hounsfield units are"),
        (np.zeros((4, 4), np.complex64), LUNG, "Hounsfield units are"),
        (b"a file", LUNG, "a window is for an array"),
    ],
)
def test_an_array_that_is_no_slice_is_refused(wrong: Any, window: Window | None, telling: str) -> None:
    client, _, _ = answering()
    with pytest.raises(ValueError, match=telling):
        client.predict(wrong, window=window)
    with pytest.raises(TypeError, match="list"):
        client.predict([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_hounsfield_units_get_the_answer_of_their_dicom_file(dtype: type[Any], server: Server) -> None:
    stored = phantom()
    hounsfield: NDArray[Any] = stored.astype(dtype) - 1024
    with Client(server.url) as client:
        expected = client.predict(ct(stored))
        for image in (hounsfield, hounsfield[np.newaxis]):
            assert client.predict(image, window=LUNG).probability == expected.probability
        assert client.explain(hounsfield, window=LUNG).probability == expected.probability
        (narrow,) = client.predict_many([hounsfield], window=Window(40, 400))
        assert isinstance(narrow, Prediction)
        assert narrow.probability != expected.probability


def test_what_is_no_number_of_hounsfield_units_is_air() -> None:
    hounsfield = np.full((32, 32), -700.0, np.float32)
    hounsfield[:8], hounsfield[8:16], hounsfield[16:20] = np.nan, np.inf, -np.inf
    air = np.where(np.isfinite(hounsfield), hounsfield, -1024)
    assert file_bytes(hounsfield, LUNG) == file_bytes(air, LUNG)


def test_a_16_bit_picture_in_memory_keeps_its_depth() -> None:
    client, script, _ = answering(httpx2.Response(200, json=ANSWER))
    client.predict(phantom())
    sent = script.requests[0].content
    image = Image.open(io.BytesIO(sent[sent.index(b"\x89PNG") :]))
    assert image.mode == "I;16"


HEATMAP = {"width": 1, "height": 1, "values": [[0.5]]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heatmap", {"width": 2, "height": 2, "values": [[0.5, 1.0], [0.5]]}),
        ("overlay_png_base64", "not base64!"),
        ("probability", "much"),
    ],
)
def test_an_answer_of_another_form_names_the_field(field: str, value: object) -> None:
    body = ANSWER | {"heatmap": HEATMAP, "lungs": None} | PICTURES | {field: value}
    client, _, _ = answering(httpx2.Response(200, json=body))
    with pytest.raises(AnswerError, match=f"see {field}"):
        client.explain(png())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:1080"),
        ("HTTP_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        Client("http://ct.example")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:{port}", "http://127.0.0.1:{port}"])
def test_a_service_on_this_machine_is_asked_directly(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with Client(url.format(port=server.port)) as client:
        assert client.predict(png(200)).model.name == "tiny"


def test_an_answer_without_end_or_with_a_false_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    client, script, _ = answering(
        httpx2.Response(200, content=b" " * 1001),
        httpx2.Response(200, stream=httpx2.ByteStream(b"no gzip"), headers={"Content-Encoding": "gzip"}),
    )
    with pytest.raises(AnswerError, match="more than 1000 bytes"):
        client.predict(png())
    assert script.requests[0].headers["accept-encoding"] == "identity"
    with pytest.raises(UnreachableError):
        client.predict(png())


def lines(*files: dict[str, object]) -> bytes:
    """The lines of a study with result files."""
    answer = {"series": [], "skipped": [], "failed": [], "model": {"name": "a", "version": "1"}}
    parts = [{"progress": {"done": 0, "of": 1, "seconds_left": None}}, {"answer": answer}]
    return b"".join(json.dumps(line).encode() + b"\n" for line in (*parts, *({"file": file} for file in files)))


def test_result_files_come_with_progress_in_whatever_pieces(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    body = lines({"series": 0, "name": "report.dcm", "content": "aGk="}, {"series": 1, "name": "a.png", "content": ""})
    client, script, _ = answering(httpx2.Response(200, stream=httpx2.ByteStream(body)))
    progress: list[StudyProgress] = []
    results = client.study_results(tmp_path, report=progress.append)
    assert results.files == {"series-0/report.dcm": b"hi", "series-1/a.png": b""}
    assert [line.of for line in progress] == [1]
    assert script.requests[0].url.params["files"] == "true"


@pytest.mark.parametrize("name", ["../../out", "/out", "..\\out", ".."])
def test_result_files_with_names_outside_of_their_folder_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    body = lines({"series": 0, "name": name, "content": ""})
    client, _, _ = answering(httpx2.Response(200, content=body))
    with pytest.raises(AnswerError, match=r"file\.name"):
        client.study_results(tmp_path)


def test_result_files_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_RESULT_BYTES", 1000)
    (tmp_path / "1.png").write_bytes(png())
    body = lines({"series": 0, "name": "segmentation.dcm", "content": "a" * 1000})
    client, _, _ = answering(httpx2.Response(200, content=body))
    with pytest.raises(AnswerError, match="more than 1000 bytes"):
        client.study_results(tmp_path)
