"""The Prometheus registry and every metric in it; names are covidct_ and base units."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.predictor import Predictor

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
_STAGE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
_TENTHS: Final = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """One application's metrics, in a registry of their own, so that two applications can live in one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "covidct_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "covidct_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "covidct_stage_duration_seconds",
            "Time in each stage of a prediction: read, decode, queue, inference.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "covidct_batch_size", "Slices in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.queue_depth = Gauge("covidct_queue_depth", "Slices that wait for the network.", registry=registry)
        self.predictions = Counter("covidct_predictions", "Predictions by label.", ["label"], registry=registry)
        self.probability = Histogram(
            "covidct_probability",
            "Probabilities answered; a change of its shape is drift.",
            buckets=_TENTHS,
            registry=registry,
        )
        self.ood_refusals = Counter(
            "covidct_ood_refusals", "Images refused because they do not look like a chest CT slice.", registry=registry
        )
        self.ood_flags = Counter(
            "covidct_ood_flags",
            "Images, answered or refused, that do not look like a chest CT slice.",
            registry=registry,
        )
        self.rejected_images = Counter(
            "covidct_rejected_images", "Uploads that gave no prediction.", ["reason"], registry=registry
        )
        self.model_info = Gauge(
            "covidct_model_info",
            "1, with the model that is served in the labels.",
            ["name", "version", "precision", "device", "sha256"],
            registry=registry,
        )
        self.ready = Gauge("covidct_ready", "1 while the service answers predictions.", registry=registry)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template or `unmatched`, never a path that a client made up."""
        method = method if method in _METHODS else "other"
        self.requests.labels(route=route, method=method, status=str(status)).inc()
        self.request_seconds.labels(route=route).observe(seconds)

    def show_model(self, predictor: Predictor) -> None:
        """Make `predictor` the model of covidct_model_info, and its two labels visible from the start."""
        self.model_info.clear()
        self.model_info.labels(
            name=predictor.card.name,
            version=predictor.card.version,
            precision=predictor.precision,
            device=predictor.device.type,
            sha256=predictor.sha256,
        ).set(1)
        for label in predictor.card.labels:
            self.predictions.labels(label=label)

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
