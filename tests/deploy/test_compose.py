"""What the compose file promises for every container; tests/containers runs it."""

import re
from typing import Any

import pytest
import yaml

from covid_ct.__main__ import _parser
from service.settings import Settings
from tests.support.processes.server import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STAYING = sorted(SERVICES.keys() - {"train", "pacs", "pacs-worker"})
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_logs_are_rotated() -> None:
    for service in SERVICES.values():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", STAYING)
def test_a_container_that_stays_has_a_health_check_and_a_port_of_this_machine_that_can_be_set(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    (port,) = service["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port)
    if "build" in service:
        assert "HEALTHCHECK --interval" in (ROOT / service["build"]["dockerfile"]).read_text()
    else:
        assert service["healthcheck"]["test"][:2] == ["CMD", "wget"]


def test_the_pacs_keeps_its_data_and_its_ports_are_of_this_machine() -> None:
    pacs = SERVICES["pacs"]
    assert pacs["profiles"] == SERVICES["pacs-worker"]["profiles"] == ["pacs"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port) for port in pacs["ports"])
    assert pacs["volumes"] == ["pacs:/var/lib/orthanc/db"]
    assert "pacs" in COMPOSE["volumes"]
    assert pacs["environment"]["ORTHANC__OHIF__DATA_SOURCE"] == "dicom-web"


def test_the_worker_of_the_pacs_has_a_command_that_the_client_knows_and_a_health_check() -> None:
    worker = SERVICES["pacs-worker"]
    start, options = worker["command"][:4], worker["command"][4:]
    assert start == ["python", "-m", "covid_ct", "pacs"]
    known = _parser().parse_args(["pacs", *options])
    assert known.url == "http://service:8000"
    assert str(known.heartbeat) in worker["healthcheck"]["test"][1]
    assert "ports" not in worker
    assert worker["image"] == SERVICES["service"]["image"]
    assert "COPY covid_ct" in (ROOT / "docker" / "service.Dockerfile").read_text()


def test_the_two_services_share_settings_and_have_their_own() -> None:
    files = {name: [each["path"] for each in SERVICES[name]["env_file"]] for name in ("service", "service-cuda")}
    defaults = "docker/defaults.env"
    assert files == {
        "service": [defaults, ".env", "service.env"],
        "service-cuda": [defaults, ".env", "service-cuda.env"],
    }
    required = [each["path"] for name in files for each in SERVICES[name]["env_file"] if each["required"]]
    assert required == [defaults] * 2
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/service.env", "/service-cuda.env", ".env"} <= set(ignored)


def test_a_container_answers_to_the_names_of_this_machine_and_of_compose_alone() -> None:
    """It listens on every address, which would switch the check of the Host header off."""
    lines = (ROOT / "docker" / "defaults.env").read_text().splitlines()
    (hosts,) = [line.removeprefix("COVIDCT_ALLOWED_HOSTS=") for line in lines if not line.startswith("#")]
    assert Settings(allowed_hosts=hosts).allowed_hosts == hosts
    assert set(hosts.split(",")) == {"localhost", "127.0.0.1", "[::1]", "service", "service-cuda"}
    assert COMPOSE["services"]["service"]["environment"]["COVIDCT_HOST"] == "0.0.0.0"  # noqa: S104


def test_the_bodies_of_all_requests_and_the_model_fit_into_the_memory_of_a_container() -> None:
    settings = Settings()
    bodies = settings.max_concurrent_requests * settings.max_body_bytes
    bodies += 3 * settings.max_concurrent_studies * settings.max_study_bytes  # a zip, files being read, one unpacked
    for name in ("service", "service-cuda"):
        assert bodies + 2 * 1024**3 <= int(SERVICES[name]["mem_limit"].removesuffix("g")) * 1024**3


def test_the_cuda_service_asks_for_its_gpu_and_does_not_use_the_cpu_without_it() -> None:
    (device,) = SERVICES["service-cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", 1)
    assert SERVICES["service-cuda"]["build"]["args"] == {"DEVICE": "cuda"}
    assert "COVIDCT_DEVICE=${DEVICE}" in (ROOT / "docker" / "service.Dockerfile").read_text()


def test_images_have_exact_versions() -> None:
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    images = {service["image"] for service in SERVICES.values()} - built
    assert images
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+$", image), image
    based = [path.read_text() for path in DOCKERFILES if "PYTHON_VERSION" in path.read_text()]
    versions = {found for text in based for found in re.findall(r"ARG PYTHON_VERSION=(.+)", text)}
    assert len(based) == 2
    assert len(versions) == 1
    assert re.fullmatch(r"3\.\d+\.\d+", versions.pop())


def test_the_file_that_stands_in_for_keys_has_none() -> None:
    default = re.fullmatch(r"\$\{COVIDCT_API_KEYS_FILE:-(.+)\}", COMPOSE["secrets"]["keys"]["file"])
    assert default is not None
    lines = (ROOT / default[1]).read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
