"""Models of the custom resources: only the fields used here, because the published schemas cannot be had offline.

Written after the definitions of the Prometheus operator (v1), KEDA (v1alpha1) and KServe (v1beta1).
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Duration = Annotated[str, StringConstraints(pattern=r"^(\d+(ms|[smhdwy]))+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Strict):
    name: str
    namespace: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Endpoint(_Strict):
    port: str
    path: str
    interval: Duration


class _Selector(_Strict):
    matchLabels: dict[str, str]  # noqa: N815 - the field's name


class _ServiceMonitorSpec(_Strict):
    selector: _Selector
    endpoints: Annotated[list[_Endpoint], Field(min_length=1)]


class ServiceMonitor(_Strict):
    """Scraping, of the Prometheus operator."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815
    kind: Literal["ServiceMonitor"]
    metadata: _Metadata
    spec: _ServiceMonitorSpec


class _Rule(_Strict):
    alert: str | None = None
    record: str | None = None
    expr: str
    wait: Duration | None = Field(default=None, alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Group(_Strict):
    name: Annotated[str, Field(min_length=1)]
    rules: Annotated[list[_Rule], Field(min_length=1)]


class _PrometheusRuleSpec(_Strict):
    groups: Annotated[list[_Group], Field(min_length=1)]


class PrometheusRule(_Strict):
    """Rules, of the Prometheus operator."""

    apiVersion: Literal["monitoring.coreos.com/v1"]  # noqa: N815
    kind: Literal["PrometheusRule"]
    metadata: _Metadata
    spec: _PrometheusRuleSpec


class _Target(_Strict):
    name: str


class _Trigger(_Strict):
    type: Literal["prometheus", "cpu"]
    name: str | None = None
    metricType: Literal["AverageValue", "Value", "Utilization"]  # noqa: N815
    metadata: dict[str, str]


class _HorizontalPodAutoscalerConfig(_Strict):
    behavior: dict[str, Any]  # checked as part of a HorizontalPodAutoscaler


class _Advanced(_Strict):
    horizontalPodAutoscalerConfig: _HorizontalPodAutoscalerConfig  # noqa: N815


class _ScaledObjectSpec(_Strict):
    scaleTargetRef: _Target  # noqa: N815
    minReplicaCount: Annotated[int, Field(ge=0)]  # noqa: N815
    maxReplicaCount: Annotated[int, Field(ge=1)]  # noqa: N815
    triggers: Annotated[list[_Trigger], Field(min_length=1)]
    advanced: _Advanced


class ScaledObject(_Strict):
    """Autoscaling, of KEDA."""

    apiVersion: Literal["keda.sh/v1alpha1"]  # noqa: N815
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _ScaledObjectSpec


class _Predictor(BaseModel):
    """Its own fields; the others are those of a pod, and checked as part of a Deployment."""

    model_config = ConfigDict(extra="allow", strict=True)

    minReplicas: Annotated[int, Field(ge=0)]  # noqa: N815
    maxReplicas: Annotated[int, Field(ge=1)]  # noqa: N815
    scaleMetric: Literal["cpu", "memory", "concurrency", "rps"]  # noqa: N815
    scaleTarget: Annotated[int, Field(ge=1)]  # noqa: N815
    containers: Annotated[list[dict[str, Any]], Field(min_length=1)]


class _InferenceServiceSpec(_Strict):
    predictor: _Predictor


class InferenceService(_Strict):
    """A model server, of KServe."""

    apiVersion: Literal["serving.kserve.io/v1beta1"]  # noqa: N815
    kind: Literal["InferenceService"]
    metadata: _Metadata
    spec: _InferenceServiceSpec


MODELS: Final[dict[str, type[BaseModel]]] = {
    model.__name__: model for model in (ServiceMonitor, PrometheusRule, ScaledObject, InferenceService)
}
"""By kind."""

SCALING_FIELDS: Final = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")
"""Fields of a predictor that no pod has."""
