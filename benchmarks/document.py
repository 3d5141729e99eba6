"""Tables and plot of docs/performance.md, made from the results; `make docs` writes the tables."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from matplotlib.figure import Figure

from benchmarks.contenders import OURS
from benchmarks.results import Results, Row

_Target: TypeAlias = tuple[str, str, Mapping[str, str]]
"""Measured quantity, target, and results by precision."""

_LATENCY_SHOWN: Final = 16
"""Number of connections."""

_PLOT: Final = "performance-throughput.png"


def draw(results: Results, folder: Path) -> None:
    """Write the plot into `images` of a folder of documents."""
    draw_throughput(results).savefig(folder / "images" / _PLOT, dpi=110)


def run(results: Results) -> str:
    """Describe machine, versions, model files and length of the benchmark."""
    files = ", ".join(f"`{name}` ({sha256}...)" for name, sha256 in results.files.items())
    rounds = max(len(row.visits) for row in results.rows)
    commit = results.commit[:7] + "-dirty" * results.commit.endswith("-dirty")
    return (
        f"{results.date}, commit {commit}, {results.processor}, {results.processors} processors, torch "
        f"{results.torch}, {results.model}: {files}. Image: "
        f"`{results.image}`. Rounds: {rounds}, with {results.seconds} s for each load."
    )


def throughput(results: Results) -> str:
    """List responses per second by number of connections."""
    connections = _connections(results)
    head = [
        "",
        "setting",
        *(str(number) for number in connections),
        f"ms at {_LATENCY_SHOWN}",
        "failed",
        "start, s",
        "peak, MiB",
    ]
    rows = []
    for row in results.rows:
        if row.failure:
            rows.append([_name(row), row.setting, f"did not run: {row.failure}", *[""] * (len(connections) + 3)])
        else:
            shares = [f"{row.rate(number):.2f} ({row.of_bare(number):.2f})" for number in connections]
            latency = "{:.0f} / {:.0f}".format(*row.latency_ms(_LATENCY_SHOWN))
            footprint = [f"{row.start_seconds:.1f}", f"{row.peak_mib:.0f}"]
            rows.append([_name(row), row.setting, *shares, latency, f"{row.failed}", *footprint])
    return table(head, rows)


def targets(results: Results) -> str:
    """List targets and measured values, one column for each precision of the service."""
    ours = [row for row in _ran(results) if row.name == OURS]
    precisions = [row.setting for row in ours]
    measured = [*_over_peers(results), *_of_ours(ours), *_below_and_idle(results)]
    if results.decoding is not None:
        what = f"rate of 512 x 512 lossless JPEG DICOM over that of PNG, {results.decoding.connections} connections"
        measured.append((what, "0.9 or more", {results.decoding.precision: f"{results.decoding.share:.2f}"}))
    rows = [
        [what, wanted, *(values.get(precision, "") for precision in precisions)] for what, wanted, values in measured
    ]
    return table(["", "wanted", *precisions], rows)


def _over_peers(results: Results) -> Iterable[_Target]:
    ours = [row for row in _ran(results) if row.name == OURS]
    peers = [row for row in _ran(results) if row.name != OURS]
    plain = [row for row in peers if row.precision == "fp32"]
    if not plain:
        yield "throughput over the best peer, 16 connections: not measured here", "", {}
        return
    best = max(plain, key=lambda row: row.rate(16))
    what = f"throughput over the best peer in fp32 ({best.name}, {best.setting}), 16 connections"
    yield what, "1.1, 2, 4 or more", {row.setting: f"{row.rate(16) / best.rate(16):.2f}" for row in ours}
    for peer in peers:
        if peer.precision == "int8":
            what = f"throughput over {peer.name} ({peer.setting}), 16 connections"
            shares = {row.setting: f"{row.rate(16) / peer.rate(16):.2f}" for row in ours if row.setting == "int8"}
            yield what, "to compare", shares


def _of_ours(ours: Sequence[Row]) -> Iterable[_Target]:
    shares = {row.setting: [f"{row.of_bare(number):.2f}" for number in row.connections] for row in ours}
    of_bare = "share of the bare network's rate"
    yield f"{of_bare}, 1 connection", "0.95 or more", {name: values[0] for name, values in shares.items()}
    yield (
        f"{of_bare}, more connections",
        "1.0 or more",
        {name: ", ".join(values[1:]) for name, values in shares.items()},
    )
    yield "start to first response, s", "3 or less", {row.setting: f"{row.start_seconds:.1f}" for row in ours}
    yield "peak memory, MiB", "700 or less", {row.setting: f"{row.peak_mib:.0f}" for row in ours}


def _below_and_idle(results: Results) -> Iterable[_Target]:
    ratios: dict[str, dict[str, str]] = {}
    for pace in results.paces:
        what = f"p99 / p50 at {pace.share:.0%} of capacity, {pace.arrivals} arrivals"
        refused = f" ({pace.failed} of {pace.count + pace.failed} refused)" if pace.failed else ""
        ratios.setdefault(what, {})[pace.precision] = f"{pace.p99_ms / pace.p50_ms:.2f}{refused}"
    for what, values in ratios.items():
        yield what, "1.5 or less", values
    added = {idle.precision: f"{idle.above_ms:.1f}" for idle in results.idle}
    yield "time that an idle service adds to decoding and the network, ms", "2 or less", added


def draw_throughput(results: Results) -> Figure:
    """Plot responses per second by number of connections: a line for each contender, a level for each bare rate."""
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for row in _ran(results):
        rates = [row.rate(number) for number in row.connections]
        style = "o-" if row.name == OURS else "x--"
        axes.plot(row.connections, rates, style, label=f"{row.name}, {row.setting}")
    for precision in dict.fromkeys(row.precision for row in _ran(results)):
        bare = [rate for row in _ran(results) if row.precision == precision for rate in row.bare_rates]
        axes.axhline(median(bare), color="grey", linestyle=":")
        axes.annotate(f"bare {precision}", (1, median(bare)), fontsize=8, va="bottom")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_connections(results), [str(number) for number in _connections(results)])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("connections")
    axes.set_ylabel("responses per second")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _ran(results: Results) -> list[Row]:
    return [row for row in results.rows if row.visits and not row.failure]


def _connections(results: Results) -> list[int]:
    return _ran(results)[0].connections


def _name(row: Row) -> str:
    return f"{row.name} {row.version}".strip()


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
