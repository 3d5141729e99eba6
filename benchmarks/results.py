"""Results of a benchmark run, stored as JSON; source of the document."""

from statistics import median

from benchmarks.load import Measured
from training.run.record import Record


class Visit(Record):
    """One contender's turn in one round.

    Attributes:
        start_seconds: from process start to the first response.
        peak_mib: peak memory of all its processes together.
        bare_rate: slices per second of the bare network in the same precision, measured just before each load.
        loads: by number of connections.
    """

    start_seconds: float
    peak_mib: float
    bare_rate: dict[int, float]
    loads: dict[int, Measured]


class Row(Record):
    """A contender over all rounds.

    Attributes:
        name, setting, precision: as in `Contender`.
        version: of the framework.
        visits: one for each round; fewer after a failure.
        failure: reason of a failure, or empty.
    """

    name: str
    setting: str
    precision: str
    version: str
    visits: list[Visit]
    failure: str = ""

    @property
    def connections(self) -> list[int]:
        """Numbers of connections that were measured, in ascending order."""
        return sorted(self.visits[0].loads) if self.visits else []

    def rate(self, connections: int) -> float:
        """Median of responses per second."""
        return median(visit.loads[connections].rate for visit in self.visits)

    def of_bare(self, connections: int) -> float:
        """Median of the rate divided by the bare network's rate just before."""
        return median(visit.loads[connections].rate / visit.bare_rate[connections] for visit in self.visits)

    def latency_ms(self, connections: int) -> tuple[float, float]:
        """Medians over rounds of the 50 % and 99 % quantiles."""
        loads = [visit.loads[connections] for visit in self.visits]
        return median(load.p50_ms for load in loads), median(load.p99_ms for load in loads)

    @property
    def bare_rates(self) -> list[float]:
        """All rates of the bare network measured before the loads."""
        return [rate for visit in self.visits for rate in visit.bare_rate.values()]

    @property
    def start_seconds(self) -> float:
        """Median over rounds."""
        return median(visit.start_seconds for visit in self.visits)

    @property
    def peak_mib(self) -> float:
        """Median over rounds."""
        return median(visit.peak_mib for visit in self.visits)

    @property
    def failed(self) -> int:
        """Number of failed requests in all loads."""
        return sum(load.failed for visit in self.visits for load in visit.loads.values())


class Pace(Record):
    """Latency at a rate below capacity.

    Attributes:
        arrivals: steady or poisson.
        share: rate divided by the capacity.
        failed: requests that were refused, not in the quantiles.
        p50_ms, p99_ms: quantiles over `count` requests, milliseconds.
    """

    precision: str
    arrivals: str
    share: float
    count: int
    failed: int = 0
    p50_ms: float
    p99_ms: float


class Idle(Record):
    """Latency of an idle service, medians in milliseconds.

    Attributes:
        http_ms: from sending to the response.
        above_ms: `http_ms` minus the decode and inference stages of the service.
        bare_ms: decoding and the network in another process, alternating with the requests.
    """

    precision: str
    count: int
    http_ms: float
    above_ms: float
    bare_ms: float


class Decoding(Record):
    """Rates of a stream of DICOM files (lossless JPEG) and of a stream of PNG files of the same slice.

    Attributes:
        png_rates, dicom_rates: responses per second, one for each turn.
        dicom_bytes: size of the DICOM file.
    """

    precision: str
    connections: int
    png_rates: list[float]
    dicom_rates: list[float]
    dicom_bytes: int

    @property
    def share(self) -> float:
        """Median over turns of the DICOM rate divided by the PNG rate."""
        return median(dicom / png for dicom, png in zip(self.dicom_rates, self.png_rates, strict=True))


class Results(Record):
    """Results of a complete run.

    Attributes:
        decoding: None in results of earlier versions.
        model: its name and version.
        files: model files by name, with the first 12 digits of their SHA-256.
        seconds: duration of each load.
    """

    date: str
    commit: str
    processor: str
    processors: int
    torch: str
    model: str
    files: dict[str, str]
    image: str
    seconds: int
    rows: list[Row]
    paces: list[Pace]
    idle: list[Idle]
    decoding: Decoding | None = None
