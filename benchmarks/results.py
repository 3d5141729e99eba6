"""What a benchmark run measured, as the JSON that the document is made of."""

from statistics import median

from benchmarks.load import Measured
from training.records import Record


class Visit(Record):
    """One contender's turn in one round.

    Attributes:
        start_seconds: from the start of its process to its first answer.
        peak_mib: most memory of all its processes together.
        bare_rate: slices a second of the bare network in the contender's precision, right before each of the loads.
        loads: by number of connections.
        stages_ms: mean milliseconds of our service's own stages, from its /metrics; empty for peers.
    """

    start_seconds: float
    peak_mib: float
    bare_rate: dict[int, float]
    loads: dict[int, Measured]
    stages_ms: dict[int, dict[str, float]]


class Row(Record):
    """A contender over all rounds.

    Attributes:
        name, setting, precision: as in `Contender`.
        version: of the framework.
        visits: one a round; fewer where it failed.
        failure: why it could not take part, or empty.
    """

    name: str
    setting: str
    precision: str
    version: str
    visits: list[Visit]
    failure: str = ""

    @property
    def connections(self) -> list[int]:
        """Numbers of connections that every visit was loaded with."""
        return sorted(self.visits[0].loads) if self.visits else []

    def rate(self, connections: int) -> float:
        """Median of answers a second."""
        return median(visit.loads[connections].rate for visit in self.visits)

    def of_bare(self, connections: int) -> float:
        """Median of the rate as a share of the bare network's in the same minute."""
        return median(visit.loads[connections].rate / visit.bare_rate[connections] for visit in self.visits)

    def latency_ms(self, connections: int) -> tuple[float, float]:
        """Medians of the 50 % and 99 % quantiles."""
        loads = [visit.loads[connections] for visit in self.visits]
        return median(load.p50_ms for load in loads), median(load.p99_ms for load in loads)

    @property
    def bare_rates(self) -> list[float]:
        """All rates of the bare network that were taken beside."""
        return [rate for visit in self.visits for rate in visit.bare_rate.values()]

    @property
    def start_seconds(self) -> float:
        """Median over rounds."""
        return median(visit.start_seconds for visit in self.visits)

    @property
    def peak_mib(self) -> float:
        """Median over rounds."""
        return median(visit.peak_mib for visit in self.visits)

    def stages_ms(self, connections: int) -> dict[str, float]:
        """Median over rounds of each stage's mean."""
        stages = [visit.stages_ms[connections] for visit in self.visits]
        return {stage: median(each[stage] for each in stages) for stage in stages[0]}

    @property
    def failed(self) -> int:
        """Requests without a good answer, of all loads."""
        return sum(load.failed for visit in self.visits for load in visit.loads.values())


class Pace(Record):
    """Latency below capacity.

    Attributes:
        precision: of the network.
        arrivals: steady, or poisson.
        share: of the capacity.
        p50_ms, p99_ms: of `count` requests, milliseconds.
    """

    precision: str
    arrivals: str
    share: float
    count: int
    p50_ms: float
    p99_ms: float


class Idle(Record):
    """A request when nothing else is asked, medians in milliseconds.

    Attributes:
        precision: of the network.
        http_ms: from sending to the answer.
        above_ms: the same less the service's own decode and inference stages.
        bare_ms: decoding and the network in another process, in turn with the requests.
    """

    precision: str
    count: int
    http_ms: float
    above_ms: float
    bare_ms: float


class Results(Record):
    """A whole run.

    Attributes:
        files: the model files by name, with the beginning of their hashes.
        seconds: of each load.
        training: see `training_efficiency`.
    """

    date: str
    commit: str
    processor: str
    processors: int
    torch: str
    files: dict[str, str]
    image: str
    seconds: int
    rows: list[Row]
    paces: list[Pace]
    idle: list[Idle]
    training: list[float]
