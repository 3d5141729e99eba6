"""deploy/kubernetes: what kubectl renders is valid, and agrees with the service, the rules and the documents."""

import json
import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from service.metrics import Metrics
from service.settings import Settings
from service.web.routes.operations import router
from tests.deploy.custom_resources import MODELS, SCALING_FIELDS
from tests.deploy.kustomize import NAMES, OVERLAYS, Manifest, needs_kubectl, only, rendered
from tests.support.processes.server import ROOT

pytestmark = needs_kubectl

RELEASES = ("1.33", "1.35", "1.37")
PODS = ("cpu", "cuda", "own-model")
"""Overlays with a Deployment."""
GIB = 1024**3


def settings_of(overlay: str) -> Settings:
    """The ConfigMap as the service reads it."""
    data = only(overlay, "ConfigMap")["data"]
    fields = {name.removeprefix("COVIDCT_").lower(): value for name, value in data.items()}
    assert all(name.startswith("COVIDCT_") for name in data)
    return Settings.model_validate(fields)


def pod_of(overlay: str) -> dict[str, Any]:
    return dict(only(overlay, "Deployment")["spec"]["template"]["spec"])


def container_of(overlay: str) -> dict[str, Any]:
    (container,) = pod_of(overlay)["containers"]
    return dict(container)


def bytes_of(gibibytes: str) -> int:
    return int(gibibytes.removesuffix("Gi")) * GIB


def problem_of(manifest: Manifest, release: str) -> str:
    """Why a manifest is not valid in a release of Kubernetes; empty if it is."""
    model = MODELS.get(manifest["kind"])
    try:
        if model:
            model.model_validate(manifest)
        else:
            validate(json.dumps(manifest), release)
    except (kubernetes_validate.ValidationError, ValidationError) as error:
        return str(error)
    return ""


@cache
def validate(manifest: str, release: str) -> None:
    """Validate once what several overlays share."""
    kubernetes_validate.validate(json.loads(manifest), release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", NAMES)
def test_every_manifest_of_an_overlay_is_valid_in_several_releases_of_kubernetes(overlay: str, release: str) -> None:
    assert {problem_of(manifest, release) for manifest in rendered(overlay)} == {""}


@pytest.mark.parametrize("kind", ["Service", "InferenceService"])
def test_a_misspelt_field_is_not_valid(kind: str) -> None:
    manifest = only("kserve", kind)
    manifest["spec"] |= {"misspelt": 1}
    assert "misspelt" in problem_of(manifest, RELEASES[0])


@pytest.mark.parametrize("overlay", NAMES)
def test_everything_is_in_one_namespace_and_no_name_is_used_twice(overlay: str) -> None:
    metadata = [(manifest["kind"], manifest["metadata"]) for manifest in rendered(overlay)]
    assert {entry["namespace"] for _, entry in metadata} == {"covid-ct"}
    assert len({(kind, entry["name"]) for kind, entry in metadata}) == len(metadata)


def test_overlays_that_are_applied_together_do_not_overwrite_each_other() -> None:
    together = [
        (each["kind"], each["metadata"]["name"]) for name in ("cpu", "monitoring", "ingress") for each in rendered(name)
    ]
    assert len(set(together)) == len(together)


@pytest.mark.parametrize("overlay", PODS)
def test_pods_have_no_privileges_and_no_token(overlay: str) -> None:
    pod = pod_of(overlay)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert only(overlay, "ServiceAccount")["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("overlay", PODS)
def test_a_pod_has_the_time_that_its_settings_need_to_end(overlay: str) -> None:
    settings, container = settings_of(overlay), container_of(overlay)
    needed = settings.drain_seconds + settings.shutdown_grace_seconds
    assert needed < pod_of(overlay)["terminationGracePeriodSeconds"] < needed + 30
    assert settings.shutdown_grace_seconds >= settings.request_timeout_seconds
    probe = container["readinessProbe"]
    assert settings.drain_seconds > probe["periodSeconds"] * probe["failureThreshold"]
    assert "lifecycle" not in container


@pytest.mark.parametrize("overlay", PODS)
def test_the_bodies_of_all_requests_and_the_model_fit_into_the_memory_limit(overlay: str) -> None:
    settings = settings_of(overlay)
    bodies = settings.max_concurrent_requests * settings.max_body_bytes
    bodies += 3 * settings.max_concurrent_studies * settings.max_study_bytes  # a zip, files being read, one unpacked
    assert bodies + 2 * GIB <= bytes_of(container_of(overlay)["resources"]["limits"]["memory"])


def test_threads_come_from_the_processor_limit() -> None:
    (variable,) = container_of("cpu")["env"]
    assert variable["name"] == "COVIDCT_THREADS"
    assert variable["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    limits = container_of("cpu")["resources"]["limits"]
    assert limits["cpu"] == container_of("cpu")["resources"]["requests"]["cpu"]


def test_a_cuda_pod_has_one_gpu_and_does_without_a_spare_one() -> None:
    assert settings_of("cuda").device == "cuda"
    assert container_of("cuda")["image"].endswith(":cuda")
    resources = container_of("cuda")["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert only("cuda", "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_probes_ask_routes_that_exist() -> None:
    routes = {route.path for route in router.routes if hasattr(route, "path")}
    container = container_of("cpu")
    asked = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert set(asked.values()) <= routes
    assert asked["readinessProbe"] == "/health/ready"
    assert asked["livenessProbe"] == "/health/live"


@pytest.mark.parametrize("overlay", PODS)
def test_every_name_that_a_pod_refers_to_exists(overlay: str) -> None:
    pod, container = pod_of(overlay), container_of(overlay)
    (settings,) = container["envFrom"]
    assert settings["configMapRef"]["name"] == only(overlay, "ConfigMap")["metadata"]["name"]
    assert pod["serviceAccountName"] == only(overlay, "ServiceAccount")["metadata"]["name"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    keys = settings_of(overlay).api_keys_file
    assert keys is not None
    assert str(keys.parent) in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("overlay", NAMES)
def test_everything_selects_the_pods(overlay: str) -> None:
    labels = only("cpu", "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        spec[field].get("matchLabels", spec[field])
        for spec in (each.get("spec", {}) for each in rendered(overlay))
        for field in ("selector", "podSelector")
        if field in spec
    ]
    assert selectors.count(labels) == len(selectors)
    if overlay == "kserve":
        assert only(overlay, "InferenceService")["metadata"]["labels"].items() >= labels.items()


def test_a_model_of_ones_own_is_copied_to_where_the_service_looks() -> None:
    (init,) = pod_of("own-model")["initContainers"]
    folder = str(settings_of("own-model").models_dir)
    assert init["volumeMounts"] == [{"name": "models", "mountPath": folder}]
    assert {"name": "models", "mountPath": folder, "readOnly": True} in container_of("own-model")["volumeMounts"]
    assert f'CMD ["cp", "-r", "/model/.", "{folder}/"]' in (ROOT / "docker" / "model.Dockerfile").read_text()


def test_a_predictor_of_kserve_is_the_same_pod_with_another_name() -> None:
    predictor = only("kserve", "InferenceService")["spec"]["predictor"]
    pod = {name: value for name, value in predictor.items() if name not in SCALING_FIELDS}
    (container,) = pod["containers"]
    assert container.pop("name") == "kserve-container"
    assert container["env"].pop(0) == {"name": "PROTOCOL", "value": "v2"}
    expected = pod_of("cpu")
    assert expected["containers"][0].pop("name") == "service"
    assert pod == expected


def test_the_autoscaler_asks_for_metrics_that_exist_of_a_deployment_that_exists() -> None:
    spec = only("monitoring", "ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["name"] == only("cpu", "Deployment")["metadata"]["name"]
    (prometheus, _) = spec["triggers"]
    named = set(re.findall(r"covidct_[a-z_]+", prometheus["metadata"]["query"]))
    assert named <= {f"{family.name}{end}" for family in Metrics().registry.collect() for end in ("_sum", "_count")}
    assert 'stage="queue"' in prometheus["metadata"]["query"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_autoscaler_is_a_valid_horizontal_pod_autoscaler(release: str) -> None:
    spec = only("monitoring", "ScaledObject")["spec"]
    made: Manifest = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda-hpa-covid-ct"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }
    assert problem_of(made, release) == ""


def test_a_monitor_scrapes_the_services_port() -> None:
    (endpoint,) = only("monitoring", "ServiceMonitor")["spec"]["endpoints"]
    (port,) = only("cpu", "Service")["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert endpoint["path"] in {getattr(route, "path", None) for route in router.routes}
    assert port["port"] == settings_of("cpu").port == container_of("cpu")["ports"][0]["containerPort"]


def test_the_ingress_lets_the_longest_body_and_answer_of_the_service_pass() -> None:
    annotations, settings = only("ingress", "Ingress")["metadata"]["annotations"], settings_of("cpu")
    longest = max(settings.max_body_bytes, settings.max_study_bytes)
    for prefix, size, read in (
        ("nginx.org", "client-max-body-size", "proxy-read-timeout"),
        ("nginx.ingress.kubernetes.io", "proxy-body-size", "proxy-read-timeout"),
    ):
        assert annotations[f"{prefix}/{size}"] == f"{longest // 1024**2}m"
        assert float(annotations[f"{prefix}/{read}"].rstrip("s")) > settings.study_timeout_seconds


def test_the_ingress_limits_the_requests_and_connections_of_an_address_like_the_example_proxy() -> None:
    example = (ROOT / "docs" / "nginx.conf").read_text()
    (rate,), (connections,) = re.findall(r" rate=(\d+)r/s;", example), re.findall(r"limit_conn \w+ (\d+);", example)
    annotations = only("ingress", "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.org/limit-req-rate"] == f"{rate}r/s"
    assert annotations["nginx.org/limit-req-key"] == "${binary_remote_addr}"
    assert annotations["nginx.ingress.kubernetes.io/limit-rps"] == rate
    assert annotations["nginx.ingress.kubernetes.io/limit-connections"] == connections


def test_the_ingress_has_tls_and_leaves_metrics_and_documentation_inside() -> None:
    spec = only("ingress", "Ingress")["spec"]
    (rule,) = spec["rules"]
    assert spec["tls"] == [{"hosts": [rule["host"]], "secretName": "covid-ct-tls"}]
    paths = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
    assert ("/", "Exact") in paths
    assert not {"/", "/metrics", "/docs", "/openapi.json", "/health"} & {
        path for path, kind in paths if kind == "Prefix"
    }


def test_operators_find_every_overlay_in_the_documents() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    applied = set(re.findall(r"kubectl apply -k (\S+)", page))
    assert {OVERLAYS / name for name in NAMES} == {ROOT / path for path in applied}
