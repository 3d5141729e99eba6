"""Prometheus metrics, with the prefix covidct_ and base units."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from service.errors import ErrorCode, ServiceError
from service.imaging.cage.ending import Ending
from service.model.card import INVOLVEMENT_BOUNDS, PROBABILITY_BOUNDS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STUDY_SECONDS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, *_STUDY_SECONDS[3:])
_STAGE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)

_FAULTS: Final = (
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.INFERENCE_FAILED,
    ErrorCode.NOT_FINITE,
    ErrorCode.QUEUE_FULL,
    ErrorCode.OUT_OF_MEMORY,
)
"""Reasons used by alerts; they start at 0, because Prometheus would miss the first increase."""


ReloadPart: TypeAlias = Literal["model", "keys"]


class Metrics:
    """Metrics of one application in their own registry, so that a process can have two applications."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._refreshers: list[Callable[[], None]] = []
        self._add_traffic(registry)
        self._add_predictions(registry)
        self._add_references(registry)
        self._add_studies(registry)
        self._add_rejections(registry)
        self._add_state(registry)

    def _add_traffic(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "covidct_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "covidct_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
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
            "Slices waiting for the network.",
            registry=registry,
        )

    def _add_predictions(self, registry: CollectorRegistry) -> None:
        self.predictions = Counter("covidct_predictions", "Predictions by label.", ["label"], registry=registry)
        self.probability = Histogram(
            "covidct_probability",
            "Probabilities of images that pass the checks; a change of their distribution is drift.",
            buckets=PROBABILITY_BOUNDS,
            registry=registry,
        )
        self.lung_involvement = Histogram(
            "covidct_lung_involvement",
            "Share of the lungs that is lesion, in images that pass the checks.",
            buckets=INVOLVEMENT_BOUNDS,
            registry=registry,
        )
        self.ood_refusals = Counter(
            "covidct_ood_refusals", "Images that failed a check and were refused.", registry=registry
        )
        self.ood_flags = Counter("covidct_ood_flags", "Images that failed a check, refused or not.", registry=registry)

    def _add_references(self, registry: CollectorRegistry) -> None:
        """Add what the alerts of drift compare with."""
        self.probability_reference = Gauge(
            "covidct_probability_reference_ratio",
            "Share of the evaluation's probabilities at or below up_to; reference for covidct_probability.",
            ["up_to"],  # `le` is for histograms alone
            registry=registry,
        )
        self.lung_involvement_reference = Gauge(
            "covidct_lung_involvement_reference_ratio",
            "Share of the evaluation's slices with a lung involvement of at most up_to; reference for "
            "covidct_lung_involvement.",
            ["up_to"],
            registry=registry,
        )

    def _add_studies(self, registry: CollectorRegistry) -> None:
        self.studies = Counter(
            "covidct_studies", "Studies by outcome: answered, or the code of the error.", ["outcome"], registry=registry
        )
        self.study_slices = Counter(
            "covidct_study_slices",
            "Slices and files of studies by outcome: read, not_read (thin series), skipped, failed, or the code of the "
            "reason, such as no_lungs. covidct_predictions and covidct_rejected_images do not count them.",
            ["outcome"],
            registry=registry,
        )
        self.study_seconds = Histogram(
            "covidct_study_duration_seconds",
            "Time from the first byte of a study to its answer.",
            buckets=_STUDY_SECONDS,
            registry=registry,
        )

    def _add_rejections(self, registry: CollectorRegistry) -> None:
        self.rejected_images = Counter(
            "covidct_rejected_images",
            "Images that were read from a request and got no prediction, by error code; on every route.",
            ["reason"],
            registry=registry,
        )
        for reason in _FAULTS:
            self.rejected_images.labels(reason=reason)
        self.ended_decodes = Counter(
            "covidct_ended_decodes",
            "Decoder processes that were ended before they were done, by reason.",
            ["reason"],
            registry=registry,
        )
        for ending in Ending:
            self.ended_decodes.labels(reason=ending)

    def _add_state(self, registry: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "covidct_model_info",
            "1; the labels describe the served model.",
            ["name", "version", "precision", "device", "sha256"],
            registry=registry,
        )
        self.reloads = Counter(
            "covidct_model_reloads",
            "Reloads, counted by part: the model and the API keys are read again each by itself.",
            ["part", "outcome"],
            registry=registry,
        )
        for part, outcome in itertools.product(get_args(ReloadPart), ("success", "failure")):
            self.reloads.labels(part=part, outcome=outcome)
        self.ready = Gauge(
            "covidct_ready",
            "1 while the service can predict and is not about to end.",
            registry=registry,
        )

    def add_refresher(self, refresher: Callable[[], None]) -> None:
        """Call `refresher` before each scrape, to set its gauges."""
        self._refreshers.append(refresher)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a template or `unmatched`, never a path from the client."""
        method = method if method in _METHODS else "other"
        self.requests.labels(route=route, method=method, status=str(status)).inc()
        self.request_seconds.labels(route=route).observe(seconds)

    @contextmanager
    def counting_rejections(self) -> Iterator[None]:
        """Count one image as rejected if the context raises, but not if it is cancelled: its request was dropped."""
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, ServiceError) else ErrorCode.INTERNAL_ERROR
            self.rejected_images.labels(reason=code).inc()
            raise

    def set_model_info(
        self,
        info: Mapping[str, str],
        labels: Iterable[str],
        probability_shares: Iterable[float],
        lung_involvement_shares: Mapping[float, float],
    ) -> None:
        """Show which model is served.

        Args:
            info: labels of covidct_model_info: name, version, precision, device, sha256.
            labels: class labels of the model; their counters start at 0.
            probability_shares: share of the evaluation's probabilities at or below 0.1, 0.2, ... 1.0; may be empty.
            lung_involvement_shares: share of the evaluation's slices by largest lung involvement; may be empty.
        """
        self.model_info.clear()
        self.model_info.labels(**info).set(1)
        for label in labels:
            self.predictions.labels(label=label)
        _set_reference(self.probability_reference, dict(zip(PROBABILITY_BOUNDS, probability_shares, strict=False)))
        _set_reference(self.lung_involvement_reference, lung_involvement_shares)

    def render(self) -> bytes:
        """Render the metrics in Prometheus' text format, version 0.0.4."""
        for refresh in self._refreshers:
            refresh()
        return generate_latest(self.registry)


def _set_reference(gauge: Gauge, shares: Mapping[float, float]) -> None:
    """Set one sample for each bound, and drop those of the previous model."""
    gauge.clear()
    for bound, share in shares.items():
        up_to = floatToGoString(bound)  # type: ignore[no-untyped-call] # as the histogram writes its label `le`
        gauge.labels(up_to=up_to).set(share)
