"""The Prometheus registry and every metric in it; names are covidct_ and base units."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.fleet import Seat
from service.predictor import Predictor

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
_STAGE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
_TENTHS: Final = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """One application's metrics, in a registry of their own, so that two applications can live in one process.

    Args:
        seat: the process' place among several workers, whose totals are then answered by each of them; None where it
            is the only one. prometheus-client must have found its folder for several processes when it was imported.
    """

    def __init__(self, seat: Seat | None = None) -> None:
        registry = self.registry = CollectorRegistry()
        self._answered = registry
        if seat is None:
            ProcessCollector(registry=registry)
        else:
            self._answered = CollectorRegistry()
            MultiProcessCollector(self._answered)  # type: ignore[no-untyped-call]
            self._answered.register(_Restarts(seat))
        self._observers: list[Callable[[], None]] = []
        self._shown: Gauge | None = None
        self._add_traffic(registry)
        self._add_answers(registry)
        self._add_state(registry)

    def _add_traffic(self, registry: CollectorRegistry) -> None:
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
        self.queue_depth = Gauge(
            "covidct_queue_depth",
            "Slices that wait for the network.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def _add_answers(self, registry: CollectorRegistry) -> None:
        self.predictions = Counter("covidct_predictions", "Predictions by label.", ["label"], registry=registry)
        self.probability = Histogram(
            "covidct_probability",
            "Probabilities answered; a change of its shape is drift.",
            buckets=_TENTHS,
            registry=registry,
        )
        self.probability_reference = Gauge(
            "covidct_probability_reference_ratio",
            "Share of the probabilities of the model's evaluation at or below le; covidct_probability as it should be.",
            ["le"],
            registry=registry,
            multiprocess_mode="livemax",
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

    def _add_state(self, registry: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "covidct_model_info",
            "1, with the model that is served in the labels.",
            ["name", "version", "precision", "device", "sha256"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.reloads = Counter(
            "covidct_model_reloads", "Attempts to take another model and other keys.", ["outcome"], registry=registry
        )
        for outcome in ("success", "failure"):
            self.reloads.labels(outcome=outcome)
        self.ready = Gauge(
            "covidct_ready",
            "1 while the service, with all its workers, answers predictions.",
            registry=registry,
            multiprocess_mode="livemin",
        )

    def on_observe(self, observer: Callable[[], None]) -> None:
        """Have `observer` set its gauges whenever they are about to be read."""
        self._observers.append(observer)

    def observe(self) -> None:
        """Bring the gauges up to date; for other workers, which read them from a file, this is done now and then."""
        for observer in self._observers:
            observer()

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template or `unmatched`, never a path that a client made up."""
        method = method if method in _METHODS else "other"
        self.requests.labels(route=route, method=method, status=str(status)).inc()
        self.request_seconds.labels(route=route).observe(seconds)

    def show_model(self, predictor: Predictor) -> None:
        """Make `predictor` the model of covidct_model_info, and its two labels visible from the start."""
        if self._shown is not None:
            self._shown.set(0)  # with several workers, clearing alone would leave it in the file that they share
        self.model_info.clear()
        self._shown = self.model_info.labels(
            name=predictor.card.name,
            version=predictor.card.version,
            precision=predictor.precision,
            device=predictor.device.type,
            sha256=predictor.sha256,
        )
        self._shown.set(1)
        for label in predictor.card.labels:
            self.predictions.labels(label=label)
        for upper, share in zip(_TENTHS, predictor.probability_shares, strict=False):
            le = floatToGoString(upper)  # type: ignore[no-untyped-call] # as the histogram's own label has it
            self.probability_reference.labels(le=le).set(share)

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        self.observe()
        return generate_latest(self._answered)


class _Restarts(Collector):
    """Counted by the supervisor, which answers no scrapes."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def collect(self) -> Iterator[Metric]:
        """The one metric."""
        yield CounterMetricFamily(
            "covidct_worker_restarts", "Workers that died and were replaced.", value=self._seat.restarts()
        )
