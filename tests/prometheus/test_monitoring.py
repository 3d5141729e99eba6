"""Alert rules and dashboard: every metric in them exists, and a real Prometheus evaluates them."""

import base64
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.metrics import Metrics
from service.web.app import IMAGE_ROUTES
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.client import png
from tests.support.processes.server import ROOT, Server, free_port, running

RULES = ROOT / "docker" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "covid-ct.json"
DATA_SOURCE = ROOT / "docker" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"

PREDICTING = "/predict|/predict/batch|/predict/study|/explain|/v2/.+/infer"
"""Routes that answer predictions, as rules and dashboard name them."""

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus (Debian: prometheus)")


def served_names() -> set[str]:
    """Every name that a scrape can hold; the last two need a Prometheus."""
    metrics = Metrics()
    names = {"up", "ALERTS"}
    for family in metrics.registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["", "_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def named(text: str) -> set[str]:
    """Metrics that expressions name, recorded ones left out."""
    return set(re.findall(r"\b(?:covidct_|process_)[a-z_]+\b(?!:)", text))


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def expressions() -> dict[str, list[str]]:
    """Of each panel, with the variables as Grafana fills them in."""
    found = {}
    for panel in dashboard()["panels"]:
        texts = [target["expr"] for target in panel.get("targets", [])]
        names = {"$job": "covid-ct.*", "$route": PREDICTING, "$__rate_interval": "1m"}
        filled = [reduce(lambda text, name: text.replace(name, names[name]), names, each) for each in texts]
        if filled:
            found[panel["title"]] = filled
    return found


def test_every_metric_of_rules_and_dashboard_is_one_that_the_service_has() -> None:
    texts = [RULES.read_text(), *(each for every in expressions().values() for each in every)]
    names = set().union(*(named(text) for text in texts))
    assert len(names) > 15
    assert names <= served_names()


def test_every_recorded_figure_that_is_used_is_recorded() -> None:
    rules = RULES.read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    used = set(re.findall(r"covidct:[a-z0-9_]+:[a-z0-9_]+", rules + DASHBOARD.read_text()))
    assert used <= recorded


def test_rules_and_dashboard_cover_every_route_that_takes_images() -> None:
    """An expression that names routes names all of them, by one pattern, or leaves out probes and scrapes."""
    taking = {template for _, template in IMAGE_ROUTES._patterns}
    assert len(taking) == 6
    assert {each for each in taking if re.fullmatch(PREDICTING, each)} == taking
    probes = {"/metrics", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
    probes |= {f"/v2/models/{{name}}{version}/ready" for version in ("", "/versions/{version}")}
    texts = [RULES.read_text(), *(each for every in expressions().values() for each in every)]
    patterns = {found for text in texts for found in re.findall(r'\broute(=~?|!~)"([^"]*)"', text)}
    recorded = {("=~", "/predict|/explain"), ("=~", "/predict/batch|/v2/.+"), ("=~", "/predict/study")}  # CovidCtSlow
    for operator, pattern in patterns - recorded:
        if operator == "!~":
            assert {each for each in probes | taking if re.fullmatch(pattern, each)} >= probes - {"/metrics"}
            assert not {each for each in taking if re.fullmatch(pattern, each)}
        else:
            assert pattern == PREDICTING
    parts = [{each for each in taking if re.fullmatch(pattern, each)} for _, pattern in recorded]
    assert set.union(*parts) == taking
    assert sum(map(len, parts)) == len(taking)


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    (uid,) = re.findall(r"uid: (\S+)", DATA_SOURCE.read_text())
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {uid}
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, "two panels overlap"
        assert max(x for x, _ in cells) < 24
        taken |= cells


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "docker/prometheus/prometheus.yml"],
        ["check", "rules", "docker/prometheus/rules.yml"],
        ["test", "rules", "tests/prometheus/rules_test.yml"],
    ],
    ids=["config", "rules", "alerts"],
)
def test_promtool_finds_nothing_wrong(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_in_the_metrics(server: Server) -> None:
    text = httpx2.get(f"{server.url}/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


class Prometheus:
    """A running one."""

    def __init__(self, port: int, client: httpx2.Client) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Its answer now.

        Raises:
            AssertionError: it does not understand the expression.
        """
        body = self._client.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert body["status"] == "success", (expression, body)
        return list(body["data"]["result"])

    def until(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Its answer, once it has one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if result := self.query(expression):
                return result
            time.sleep(0.2)
        raise AssertionError(f"no data: {expression}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_models(models, tiny_card())
    manifest = json.loads((models / "metrics.json").read_text()) | {
        "probability_shares": [tenth / 10 for tenth in range(1, 11)],
        "lung_involvement_shares": {"0.0": 0.2, "0.5": 0.9, "1.0": 1.0},
    }
    (models / "metrics.json").write_text(json.dumps(manifest))
    with running(models, log_level="WARNING") as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Debian's, with the rules as they ship, scraping the plain process every second."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "config.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{RULES}']\nscrape_configs:\n"
        f"  - {{job_name: covid-ct, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}\n"
    )
    command = ["prometheus", f"--config.file={folder / 'config.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        with httpx2.Client() as client:
            _wait(process, client, port, folder / "log")
            yield Prometheus(port, client)
    finally:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", client: httpx2.Client, port: int, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            if client.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError("prometheus was not ready in time")


@needs_prometheus
def test_every_panel_shows_something_after_some_traffic(server: Server, prometheus: Prometheus) -> None:
    encoded = base64.b64encode(png(220)).decode()
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded]}]}
    deadline = time.monotonic() + 60
    last = 'rate(covidct_requests_total{route="/v2/models/{name}/versions/{version}/infer"}[1m]) > 0'
    with httpx2.Client(base_url=server.url) as client:
        while not prometheus.query(last):  # rates need two scrapes between which something happened
            assert time.monotonic() < deadline, "no rate of what was sent"
            for data in (png(220), png(60), png(2), b"no image"):
                client.post("/predict", files={"image": ("a.png", data, "image/png")})
            for route in ("/predict/batch", "/predict/study", "/explain"):
                client.post(route, files={"image": ("a.png", png(220), "image/png")})
            for version in ("", "/versions/0.0.1"):
                client.post(f"/v2/models/tiny{version}/infer", json=body)
    server.process.send_signal(signal.SIGHUP)
    prometheus.until('covidct_model_reloads_total{outcome="success"} > 0')
    assert prometheus.until('up{job="covid-ct"} == 1')
    assert float(prometheus.until('sum(covidct_requests_total{route="/predict",status="200"})')[0]["value"][1]) > 10
    prometheus.until("covidct:probability:drift1h")
    prometheus.until("covidct:lung_involvement:drift1h")
    for recorded in ("covidct:errors:ratio5m", "covidct:request_seconds:p99_5m"):
        routes = prometheus.until(f'{recorded}{{route=~"/v2/models/.name./versions.+"}}') and prometheus.query(recorded)
        assert {each["metric"]["route"] for each in routes} == {template for _, template in IMAGE_ROUTES._patterns}
    silent = {
        title
        for title, texts in expressions().items()
        for text in texts
        if all(each["value"][1] == "NaN" for each in prometheus.query(text))
    }
    assert not silent


@needs_prometheus
def test_recorded_figures_and_alerts_are_evaluated_without_an_error(prometheus: Prometheus) -> None:
    prometheus.until("covidct:requests:rate5m")
    groups = httpx2.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 23
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule.get("lastError") for rule in rules] == [None] * 23
