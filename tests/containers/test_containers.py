"""The images and the compose file, built and run for real: `make test-containers`.

Everything happens in a store of its own that begins empty and is removed. Base images are made here, and no registry is
asked. Grafana is not started, because its image can not be made here; tests/prometheus evaluates its dashboard.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.containers.engine import BASE, Engine, engine_with_base, missing
from tests.support.processes.server import ROOT, free_port
from tests.support.sources.covid_ct import small_lists, write_data_set
from tests.support.sources.lesion_sources import chest_files, write_clear, write_labelled, write_lesions
from training.network.weights import write_random_weights

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(missing()), reason=f"not here: {', '.join(missing())}"),
]

FILES = [ROOT / "docker-compose.yml", ROOT / "tests" / "containers" / "compose.override.yml"]
README = (ROOT / "README.md").read_text()
PROMETHEUS = "http://127.0.0.1:9090"
SERVICE = "http://127.0.0.1:8000"
PACS = "http://127.0.0.1:8042"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")  # noqa: S108


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_with_base(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the images are built from, so that a test may change it."""
    folder = tmp_path_factory.mktemp("context")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", ".dockerignore"):
        shutil.copy(ROOT / name, folder)
    for name in ("covid_ct", "service", "training", "models", "docker"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def cpu_image(engine: Engine, context: Path) -> str:
    """Built, slim, and built again in seconds after a change of code."""
    arguments = {"BASE_IMAGE": BASE, **engine.torch_arguments()}
    dockerfile, tag = context / "docker" / "service.Dockerfile", "covid-ct:cpu"
    clean = engine.build(tag, dockerfile, context, **arguments)
    with (context / "service" / "health.py").open("a") as file:
        file.write("# changed\n")
    again = engine.build(tag, dockerfile, context, **arguments)
    tell(f"CPU image: {engine.size_mb(tag):.0f} MB, built in {clean:.0f} s, after a change of code in {again:.0f} s")
    assert engine.size_mb(tag) <= 1200
    assert again < clean / 4
    return tag


def tell(what: str) -> None:
    print(f"\n  containers: {what}", flush=True)


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> float:
    """Wait until it is true; return the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            if condition():
                return time.monotonic() - started
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def is_healthy(engine: Engine, container: str) -> bool:
    """Its own health check, asked for, because podman needs systemd to ask by itself."""
    state = engine.podman("inspect", "--format", "{{.State.Status}}", container).strip()
    assert state == "running", engine.podman("logs", container)
    return engine.succeeds("healthcheck", "run", container)


def query(expression: str) -> list[dict[str, object]]:
    answer = httpx2.get(f"{PROMETHEUS}/api/v1/query", params={"query": expression}).json()
    return list(answer["data"]["result"])


@pytest.fixture
def composed(engine: Engine, cpu_image: str) -> Iterator[Engine]:
    engine.build(
        "localhost/covid-ct-test-prometheus",
        ROOT / "tests" / "containers" / "prometheus.Dockerfile",
        ROOT / "tests" / "containers",
        BASE_IMAGE=BASE,
    )
    try:
        yield engine
    finally:
        engine.compose("down", "--volumes", "--timeout", "10", files=FILES, check=False)


def container_of(engine: Engine, name: str) -> str:
    """The id of the compose service's container."""
    label = f"label=com.docker.compose.service={name}"
    return engine.podman("ps", "--all", "--quiet", "--filter", label).strip()


def test_compose_serves_is_scraped_alerts_and_goes_away(composed: Engine) -> None:
    engine = composed
    engine.compose("config", files=FILES)
    started = time.monotonic()
    engine.compose("up", "--detach", "--no-build", "service", files=FILES)
    service = container_of(engine, "service")
    until(lambda: is_healthy(engine, service), "the service is healthy")
    tell(f"compose up to healthy: {time.monotonic() - started:.1f} s")
    engine.compose("up", "--detach", "--no-build", "--no-deps", "prometheus", files=FILES)

    (curl,) = set(re.findall(r"^(curl -F image=@examples/lesion\.png localhost:8000/predict)\b", README, re.MULTILINE))
    done = subprocess.run(curl.split(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 <= json.loads(done.stdout)["probability"] <= 1
    assert engine.podman("exec", service, "id", "-u").strip() == "10001"
    assert "Read-only file system" in engine.podman("exec", service, "touch", "/app/x", check=False)
    bill = json.loads(engine.podman("exec", service, "cat", "/app/sbom.cdx.json"))
    assert {"torch", "fastapi", "pillow"} <= {part["name"].lower() for part in bill["components"]}

    until(lambda: query('up{job="covid-ct"} == 1'), "Prometheus scrapes the service")
    assert is_healthy(engine, container_of(engine, "prometheus"))
    until(lambda: query('covidct_requests_total{route="/predict",status="200"} == 1'), "the request is counted")
    assert not query('ALERTS{alertstate="firing"}')
    engine.podman("stop", "--time", "10", service)
    seconds = until(lambda: query('ALERTS{alertname="CovidCtDown",alertstate="firing"}'), "the alert fires")
    tell(f"stopped service to firing alert: {seconds:.0f} s")

    engine.compose("down", "--volumes", "--timeout", "10", files=FILES)
    assert engine.podman("ps", "--all", "--quiet").strip() == ""
    assert engine.podman("volume", "ls", "--quiet").strip() == ""
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{SERVICE}/health/live")


def test_the_compose_profile_pacs_answers_a_series_once_and_keeps_it(engine: Engine, cpu_image: str) -> None:
    folder = ROOT / "tests" / "containers"
    engine.build("localhost/covid-ct-test-orthanc", folder / "orthanc.Dockerfile", folder, BASE_IMAGE=BASE)

    def up(name: str) -> str:
        engine.compose("--profile", "pacs", "up", "--detach", "--no-build", "--no-deps", name, files=FILES)
        container = container_of(engine, name)
        until(lambda: is_healthy(engine, container), f"{name} is healthy")
        return container

    def results(modality: str) -> list[str]:
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        return list(httpx2.post(f"{PACS}/tools/find", json=query).json())

    try:
        up("service")
        pacs = up("pacs")
        started = time.monotonic()
        study = (ROOT / "service" / "web" / "page" / "sample-study.dcm").read_bytes()
        httpx2.post(f"{PACS}/instances", content=study).raise_for_status()
        worker = up("pacs-worker")
        until(lambda: results("SR"), "the series has a report")
        tell(f"pacs: series to report in {time.monotonic() - started:.0f} s")
        assert (len(results("SEG")), len(results("SR"))) == (1, 1)

        engine.podman("kill", pacs, worker)
        engine.podman("start", pacs, worker)
        until(lambda: is_healthy(engine, pacs), "the PACS is healthy again")
        again = (
            "python",
            "-m",
            "covid_ct",
            "pacs",
            "http://pacs:8042/dicom-web",
            "--url=http://service:8000",
            "--once",
        )
        assert engine.podman("exec", worker, *again).strip() == ""
        assert (len(results("SEG")), len(results("SR"))) == (1, 1)
    finally:
        engine.compose("--profile", "pacs", "down", "--volumes", "--timeout", "10", files=FILES, check=False)


def test_keys_and_settings_of_one_service_need_no_edit_of_the_compose_file(
    engine: Engine, cpu_image: str, tmp_path: Path
) -> None:
    """With files next to the compose file, as docs/operating.md has it."""
    keys, key, added = tmp_path / "keys.txt", "a-first-key-0123456789", "a-second-key-0123456789"
    keys.write_text(f"{key}\n")
    keys.chmod(0o444)  # the container's user is another one
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    (tmp_path / ".env").write_text(f"COVIDCT_API_KEYS_FILE={keys}\nCOVIDCT_LOG_LEVEL=ERROR\nSERVICE_PORT=18123\n")
    (tmp_path / "service.env").write_text("COVIDCT_LOG_LEVEL=INFO\nCOVIDCT_PRECISION=int8\n")
    files = [tmp_path / "docker-compose.yml", ROOT / "tests" / "containers" / "compose.override.yml"]

    def status(**headers: str) -> int:
        with (ROOT / "examples" / "slice.png").open("rb") as file:
            return httpx2.post(f"{SERVICE}/predict", files={"image": file}, headers=headers, timeout=60).status_code

    try:
        assert "127.0.0.1:18123:8000" in engine.compose("config", files=files)
        engine.compose("up", "--detach", "--no-build", "service", files=files)
        service = container_of(engine, "service")
        until(lambda: is_healthy(engine, service), "the service is healthy")
        assert (status(), status(**{"X-API-Key": key})) == (401, 200)
        assert httpx2.get(f"{SERVICE}/model").json()["precision"] == "int8"
        assert '"level": "INFO"' in engine.podman("logs", service), "service.env wins over .env"
        with keys.open("a") as file:
            file.write(f"{added}\n")
        engine.compose("kill", "--signal", "HUP", "service", files=files)
        until(lambda: status(**{"X-API-Key": added}) == 200, "the added key is accepted")
    finally:
        engine.compose("down", "--volumes", "--timeout", "10", files=files, check=False)


def test_the_composed_image_serves_int8_where_it_is_asked_for(engine: Engine, cpu_image: str) -> None:
    port = free_port()
    settings = ("--env", f"COVIDCT_PORT={port}", "--env", "COVIDCT_PRECISION=int8")
    run = ("run", "--detach", "--network", "host", *HARDENED, *settings, cpu_image)
    container = engine.podman(*run).strip().splitlines()[-1]
    try:
        until(lambda: is_healthy(engine, container), "the service is healthy")
        assert httpx2.get(f"http://127.0.0.1:{port}/model").json()["precision"] == "int8"
        log = engine.podman("logs", container).strip().splitlines()
        assert [json.loads(line)["level"] for line in log], "torch's own words would be no JSON"
    finally:
        engine.podman("rm", "--force", "--time", "10", container)


def test_the_cuda_image_does_not_start_without_a_gpu_unless_it_may_use_the_cpu(engine: Engine, context: Path) -> None:
    tag = "covid-ct:cuda"
    clean = engine.build(tag, context / "docker" / "service.Dockerfile", context, DEVICE="cuda", BASE_IMAGE=BASE)
    port = free_port()
    run = ("run", "--network", "host", *HARDENED, "--env", f"COVIDCT_PORT={port}")
    refused = engine.podman(*run, "--name", "without-gpu", tag, check=False).strip().splitlines()
    assert refused[-1].startswith("error: device cuda: no CUDA device is available")
    assert engine.podman("inspect", "--format", "{{.State.ExitCode}}", "without-gpu").strip() == "1"

    started = time.monotonic()
    container = engine.podman(*run, "--detach", "--env", "COVIDCT_DEVICE=auto", tag).strip().splitlines()[-1]
    until(lambda: is_healthy(engine, container), "the service is healthy")
    seconds = time.monotonic() - started
    tell(f"CUDA image: {engine.size_mb(tag):.0f} MB, built in {clean:.0f} s, healthy after {seconds:.1f} s")
    with (ROOT / "examples" / "slice.png").open("rb") as file:
        answer = httpx2.post(f"http://127.0.0.1:{port}/predict", files={"image": file}, timeout=60)
    assert answer.status_code == 200
    assert '"device": "cpu"' in engine.podman("logs", container)
    engine.podman("rm", "--force", "--time", "10", container, "without-gpu")


def test_a_model_that_the_train_profile_made_is_served_and_reloaded(
    engine: Engine, cpu_image: str, context: Path, tmp_path: Path
) -> None:
    tag = "covid-ct:train"
    clean = engine.build(tag, context / "docker" / "train.Dockerfile", context, BASE_IMAGE=BASE)
    tell(f"training image: {engine.size_mb(tag):.0f} MB, built in {clean:.0f} s")
    lists, sources = small_lists({"train": 3, "val": 2, "test": 2}), tmp_path / "data"
    write_data_set(sources / "covid-ct", lists, chest_files(lists))
    write_labelled(sources / "labelled", 3)
    write_lesions(sources / "lesions", volumes=6, slices=1)
    write_clear(sources / "clear")
    (tmp_path / "weights").mkdir()
    write_random_weights(tmp_path / "weights" / "vgg19_bn.pth")
    served = tmp_path / "trained.yml"
    served.write_text("services: {service: {environment: {COVIDCT_MODELS_DIR: /models}}}")
    files, folders = [*FILES, served], {"DATA": str(tmp_path / "data"), "WEIGHTS": str(tmp_path / "weights")}

    def train(version: str, *, processes: int) -> None:
        where = ["--data", "/data/covid-ct", "--lesions", "/data/lesions", "--clear", "/data/clear"]
        where += [
            "--labelled",
            "/data/labelled",
            "--run",
            "/runs/lesion",
            "--release",
            "/models",
            "--release-anyway",
            "--export-anyway",
        ]
        small = ["--counts", "any", "--finder-steps", "50", "--finder-batch-size", "12", "--steps", "2"]
        small += ["--left-out-steps", "2", "--batch-size", "2", "--weights", "/weights/vgg19_bn.pth", "--fresh"]
        run, arguments = ["--profile", "train", "run", "--rm"], ["train", *where, *small, "--model-version", version]
        command = [*run, "train", *arguments]
        if processes > 1:
            several = ["--nproc-per-node", str(processes), "-m", "--", "training"]
            command = [*run, "--entrypoint", "torchrun", "train", *several, *arguments]
        engine.compose(*command, files=files, environment=folders)

    def served_version() -> str:
        return str(httpx2.get(f"{SERVICE}/model").json()["card"]["version"])

    try:
        train("7.0.0", processes=1)
        engine.compose("up", "--detach", "--no-build", "service", files=files, environment=folders)
        service = container_of(engine, "service")
        until(lambda: is_healthy(engine, service), "the service is healthy")
        assert served_version() == "7.0.0"
        train("7.0.1", processes=2)
        engine.compose("kill", "--signal", "HUP", "service", files=files, environment=folders)
        until(lambda: served_version() == "7.0.1", "the new model is served")
    finally:
        engine.compose("down", "--volumes", "--timeout", "10", files=files, environment=folders, check=False)
