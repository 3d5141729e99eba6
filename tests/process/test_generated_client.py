"""A typed client that openapi-python-client generates from the OpenAPI document, used against a running service."""

import importlib
import io
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

from tests.support.processes.server import ROOT, Server

PACKAGE = "covid_ct_api"
SLICE = ROOT / "examples" / "slice.png"


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(httpx2.get(f"{server.url}/openapi.json").content)
    (folder / "config.yml").write_text("post_hooks: []\n")  # no formatter: nobody reads the code
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"]
    options = ["--config", "config.yml", "--meta", "none", "--output-path", PACKAGE, "--fail-on-warning"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    sys.path.insert(0, str(folder))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def client(generated: ModuleType, server: Server) -> Iterator[Any]:
    with generated.Client(base_url=server.url) as client:
        yield client


def operation(tag: str, name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")


def body(name: str) -> Any:
    return getattr(importlib.import_module(f"{PACKAGE}.models"), name)


def file(data: bytes) -> Any:
    return importlib.import_module(f"{PACKAGE}.types").File(payload=io.BytesIO(data), file_name="slice.png")


def test_every_operation_has_a_module_that_can_be_imported(generated: ModuleType, server: Server) -> None:
    paths = httpx2.get(f"{server.url}/openapi.json").json()["paths"]
    ids = {entry["operationId"] for methods in paths.values() for entry in methods.values()}
    api = importlib.import_module(f"{PACKAGE}.api")
    names = [module.name for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}.") if not module.ispkg]
    assert {name.rsplit(".", 1)[1] for name in names} == ids
    assert all(importlib.import_module(name).sync_detailed for name in names)


def test_a_slice_gets_the_typed_answer_that_the_service_gives(client: Any, server: Server) -> None:
    answer = operation("predictions", "predict").sync(client=client, body=body("PredictBody")(file(SLICE.read_bytes())))
    assert isinstance(answer, body("Prediction"))
    raw = httpx2.post(f"{server.url}/predict", files={"image": SLICE.read_bytes()}).json()
    assert (answer.probability, answer.label, answer.model.name) == (raw["probability"], raw["label"], "tiny")
    assert answer.lung_involvement.both == raw["lung_involvement"]["both"]


def test_a_refused_file_is_a_typed_problem(client: Any) -> None:
    answer = operation("predictions", "predict").sync_detailed(client=client, body=body("PredictBody")(file(b"text")))
    assert answer.status_code == 415
    assert isinstance(answer.parsed, body("Problem"))
    assert answer.parsed.code == "unsupported_image_type"
    assert answer.parsed.request_id == answer.headers["x-request-id"]


def test_the_model_has_its_card(client: Any) -> None:
    answer = operation("operations", "model").sync(client=client)
    assert isinstance(answer, body("ModelInfo"))
    assert answer.card.name == "tiny"
    assert operation("operations", "ready").sync(client=client) == body("Health")(status="ok")


def test_the_protocols_answers_and_errors_are_typed_too(client: Any) -> None:
    tensor = body("TensorIn")(name="slice", shape=[1, 1, 16, 16], datatype="UINT8", data=[200] * 256)
    asked = body("InferRequest")(inputs=[tensor], outputs=[body("RequestedOutput")(name="probability")])
    infer = operation("v2", "v2_model_infer")
    answer = infer.sync("tiny", client=client, body=asked)
    assert isinstance(answer, body("InferResponse"))
    assert [output.name for output in answer.outputs] == ["probability"]
    refused = infer.sync("other", client=client, body=asked)
    assert isinstance(refused, body("V2Error"))
    assert refused.code == "unknown_model"


def test_the_example_of_the_documents_runs(generated: ModuleType, server: Server) -> None:
    page = (ROOT / "docs" / "using.md").read_text()
    (example,) = re.findall(rf"```python\n(from {PACKAGE} .*?)```", page, flags=re.DOTALL)
    example = example.replace("http://localhost:8000", server.url).replace("slice.png", str(SLICE))
    folder = Path(str(generated.__file__)).parents[1]
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1
