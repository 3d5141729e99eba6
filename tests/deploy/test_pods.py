"""The overlays, run: pods, a rolling update under load, a killed pod, and a model of one's own."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx2
import pytest

from tests.containers.engine import BASE, Engine, engine_with_base, missing
from tests.deploy.ingress import Ingress
from tests.deploy.kustomize import needs_kubectl, only, rendered
from tests.deploy.pods import Pod
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.load import request
from tests.support.processes.server import ROOT

ABSENT = missing() + [tool for tool in ("nginx",) if not shutil.which(tool)]

pytestmark = [
    pytest.mark.containers,
    needs_kubectl,
    pytest.mark.skipif(bool(ABSENT), reason=f"not here: {', '.join(ABSENT)}"),
]

KEY = "a-key-of-the-tests"
SLICE = (ROOT / "examples" / "slice.png").read_bytes()
CONNECTIONS = 8
IMAGE, SUCCESSOR = "localhost/covid-ct:cpu", "localhost/covid-ct:cpu-next"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the CPU image under two tags."""
    with engine_with_base(tmp_path_factory.mktemp("engine")) as engine:
        engine.build(IMAGE, ROOT / "docker" / "service.Dockerfile", ROOT, BASE_IMAGE=BASE, **engine.torch_arguments())
        successor = engine.folder / "successor.Dockerfile"
        successor.write_text(f"FROM {IMAGE}\nLABEL org.opencontainers.image.version=next\n")
        engine.build(SUCCESSOR, successor, engine.folder / "run")
        yield engine


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys.txt").write_text(f"{KEY}\n")
    folder.chmod(0o755)
    return folder


@pytest.fixture
def ingress(tmp_path: Path) -> Iterator[Ingress]:
    tmp_path.chmod(0o755)
    ingress = Ingress(tmp_path)
    try:
        yield ingress
    finally:
        ingress.close()


class Load:
    """Clients that ask without a pause, each request on its own connection, until they are stopped."""

    def __init__(self, port: int) -> None:
        self.statuses: list[int] = []
        self._port = port
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[int]:
        """Return the status of every request; 0 is a broken connection."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
        return self.statuses

    def await_answers(self, count: int, what: str) -> None:
        """Wait for `count` answers more."""
        wanted = len(self.statuses) + count
        until(lambda: len(self.statuses) >= wanted, what)

    def _ask(self) -> None:
        head, _, body = request(SLICE).partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:]) | {"X-API-Key": KEY}
        while not self._stopped.is_set():
            connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, HTTPException):
                self.statuses.append(0)
            finally:
                connection.close()


@contextmanager
def two_pods_under_load(engine: Engine, keys: Path, ingress: Ingress, name: str) -> Iterator[tuple[list[Pod], Load]]:
    """Two pods that answer a load through the ingress; whatever pods are in the list at the end are removed."""
    pods = [Pod(engine, f"{name}-{number}", rendered("cpu"), keys, IMAGE) for number in (1, 2)]
    try:
        for pod in pods:
            ingress.add(pod)
        until(lambda: all(ingress.serves(pod) for pod in pods), "both pods are served")
        load = Load(ingress.port)
        load.await_answers(2 * CONNECTIONS, "requests are answered")
        yield pods, load
    finally:
        for pod in pods:
            pod.remove()


def tell(what: str) -> None:
    print(f"\n  pods: {what}", flush=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 180) -> float:
    """Wait until it is true; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - started


def predict(url: str, key: str) -> httpx2.Response:
    files = {"image": ("slice.png", SLICE, "image/png")}
    return httpx2.post(f"{url}/predict", files=files, headers={"X-API-Key": key}, timeout=60)


def test_a_pod_of_the_cpu_overlay_answers_and_can_change_nothing_on_its_disk(engine: Engine, keys: Path) -> None:
    started = time.monotonic()
    pod = Pod(engine, "alone", rendered("cpu"), keys, IMAGE)
    try:
        until(pod.is_ready, "the pod is ready")
        tell(f"start to ready: {time.monotonic() - started:.1f} s")
        assert 0 <= predict(pod.url, KEY).json()["probability"] <= 1
        refused = predict(pod.url, "wrong")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert "Read-only file system" in pod.inside("touch", "/app/x", check=False)
        assert pod.inside("id", "-u").strip() == "10001"
        status = pod.inside("cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        limit = pod.spec["containers"][0]["resources"]["limits"]["cpu"]
        assert f"COVIDCT_THREADS={limit}" in pod.inside("env").splitlines()
        pod.inside("touch", "/tmp/x")  # noqa: S108
    finally:
        pod.remove()


def test_a_rolling_update_under_load_fails_no_request(engine: Engine, keys: Path, ingress: Ingress) -> None:
    strategy = only("cpu", "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}, "the order below is that of this strategy"
    with two_pods_under_load(engine, keys, ingress, "old") as (pods, load):
        for number in (1, 2):
            before = len(load.statuses)
            successor = Pod(engine, f"new-{number}", rendered("cpu"), keys, SUCCESSOR)
            pods.append(successor)
            ingress.add(successor)
            started = until(partial(ingress.serves, successor), "the new pod is served")
            old = pods.pop(0)
            ended = time.monotonic()
            old.stop()
            seconds = time.monotonic() - ended
            answered = len(load.statuses) - before
            tell(
                f"new pod served after {started:.1f} s, old one ended in {seconds:.1f} s, {answered} answers meanwhile"
            )
            assert not ingress.serves(old)
        load.await_answers(2 * CONNECTIONS, "the new pods answer")
        statuses = load.stop()
    tell(f"rolling update: {len(statuses)} requests, {sum(status != 200 for status in statuses)} failed")
    assert set(statuses) == {200}
    assert len({answer["pod"] for answer in ingress.answers()}) >= 4


def test_when_a_pod_is_killed_only_its_requests_in_flight_fail(engine: Engine, keys: Path, ingress: Ingress) -> None:
    with two_pods_under_load(engine, keys, ingress, "both") as (pods, load):
        victim = pods[0]
        killed = victim.kill()
        until(lambda: not ingress.serves(victim), "the killed pod is no longer served")
        load.await_answers(2 * CONNECTIONS, "the other pod answers")
        until(lambda: ingress.serves(victim), "the killed pod is started again")
        seconds = time.time() - killed
        statuses = load.stop()
    failed = [answer for answer in ingress.answers() if answer["status"] != 200]
    tell(f"killed pod: {len(statuses)} requests, {len(failed)} failed; served again within {seconds:.0f} s")
    assert sorted(answer["status"] for answer in failed) == sorted(status for status in statuses if status != 200)
    assert len(failed) <= CONNECTIONS
    assert {answer["pod"] for answer in failed} <= {f"127.0.0.1:{victim.port}"}
    # Its sockets are closed a moment after the signal, when its memory is freed.
    assert all(answer["at"] - answer["seconds"] <= killed + 1 for answer in failed)


def test_a_model_of_ones_own_is_served_and_a_damaged_one_never_becomes_ready(
    engine: Engine, keys: Path, tmp_path: Path
) -> None:
    file = write_models(tmp_path)
    model_image = "localhost/covid-ct-model"
    engine.build(f"{model_image}:1.0.0", ROOT / "docker" / "model.Dockerfile", tmp_path, BASE_IMAGE=IMAGE)
    damaged = engine.folder / "damaged.Dockerfile"
    damaged.write_text(f"FROM {model_image}:1.0.0\nUSER 0\nRUN echo >> /model/{file.name}\nUSER 10001\n")
    engine.build(f"{model_image}:1.0.1", damaged, engine.folder / "run")

    def play(version: str) -> Pod:
        manifests = rendered("own-model")
        deployment = next(each for each in manifests if each["kind"] == "Deployment")
        deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] = f"{model_image}:{version}"
        return Pod(engine, f"model-{version.replace('.', '-')}", manifests, keys, IMAGE)

    good = play("1.0.0")
    try:
        until(good.is_ready, "the pod is ready")
        served = httpx2.get(f"{good.url}/model", headers={"X-API-Key": KEY}).json()
        assert served["card"]["version"] == tiny_card().version
    finally:
        good.remove()
    bad = play("1.0.1")
    try:
        until(lambda: "not the released file" in bad.log(), "the service refuses the file")
        assert not bad.is_ready()
    finally:
        bad.remove()
