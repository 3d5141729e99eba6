"""Writes the tables and the plot of docs/performance.md from the results; the text around them is kept."""

import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final

from matplotlib.figure import Figure

from benchmarks.contenders import OURS
from benchmarks.results import Results, Row

_DOCUMENT: Final = "performance.md"
_PLOT: Final = "performance-throughput.png"


def write_document(results: Results, folder: Path) -> None:
    """Replace the text between `<!-- begin NAME -->` and `<!-- end NAME -->` in performance.md, and draw the plot.

    Raises:
        ValueError: a pair of markers is missing or not unique.
    """
    replace_parts(folder / _DOCUMENT, _parts(results))
    draw_throughput(results).savefig(folder / "images" / _PLOT, dpi=110)


def replace_parts(path: Path, parts: dict[str, str]) -> None:
    """Replace the text between each pair of markers of a page; the text around them is kept.

    Raises:
        ValueError: a pair of markers is missing or not unique.
    """
    text = path.read_text()
    for name, part in parts.items():
        text, count = re.subn(
            rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)",
            lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"{path}: expected exactly one pair of markers named {name}, found {count}")
    path.write_text(text)


def _parts(results: Results) -> dict[str, str]:
    return {
        "run": _run(results),
        "throughput": _throughput(results),
        "latency": _latency(results),
        "footprint": _footprint(results),
        "stages": _stages(results),
        "targets": _targets(results),
        "below-capacity": _below_capacity(results),
        "training": _training(results),
    }


def _run(results: Results) -> str:
    files = ", ".join(f"`{name}` ({sha256}...)" for name, sha256 in results.files.items())
    rounds = max(len(row.visits) for row in results.rows)
    commit = results.commit[:7] + "-dirty" * results.commit.endswith("-dirty")
    return (
        f"{results.date}, commit {commit}, {results.processor}, {results.processors} processors, torch "
        f"{results.torch}, {files}. Image: `{results.image}`. {rounds} rounds, {results.seconds} s for each load."
    )


def _throughput(results: Results) -> str:
    connections = _connections(results)
    head = ["", "setting", *(f"{each}" for each in connections), "failed"]
    rows = []
    for row in results.rows:
        if row.failure:
            rows.append([_name(row), row.setting, f"did not run: {row.failure}", *[""] * len(connections)])
        else:
            shares = [f"{row.rate(each):.2f} ({row.of_bare(each):.2f})" for each in connections]
            rows.append([_name(row), row.setting, *shares, f"{row.failed}"])
    return table(head, rows)


def _latency(results: Results) -> str:
    connections = _connections(results)
    rows = [
        [_name(row), row.setting, *("{:.0f} / {:.0f}".format(*row.latency_ms(each)) for each in connections)]
        for row in results.rows
        if not row.failure
    ]
    return table(["", "setting", *(f"{each}" for each in connections)], rows)


def _footprint(results: Results) -> str:
    rows = [[_name(row), row.setting, f"{row.start_seconds:.1f}", f"{row.peak_mib:.0f}"] for row in _ran(results)]
    return table(["", "setting", "start to first answer, s", "peak memory, MiB"], rows)


def _stages(results: Results) -> str:
    rows = []
    for row in _ran(results):
        for connections in row.connections:
            stages = row.stages_ms(connections)
            if stages:
                shown = [f"{stages.get(stage, 0):.1f}" for stage in ("read", "decode", "queue", "inference")]
                rows.append([row.setting, f"{connections}", *shown])
    return table(["setting", "connections", "read", "decode", "queue", "inference"], rows)


def _targets(results: Results) -> str:
    """Table of targets and measured values."""
    rows = [*_over_peers(results), *_of_ours(results), *_below_and_idle(results)]
    if results.decoding is not None:
        what = f"rate of 512 x 512 lossless JPEG DICOM over that of PNG, {results.decoding.connections} connections"
        rows.append([what, "at least 0.9", f"{results.decoding.share:.2f}"])
    if results.training:
        what = "training: time of the passes alone / time of an epoch"
        rows.append([what, "at least 0.85", f"{median(results.training):.2f}"])
    return table(["", "target", "measured"], rows)


def _over_peers(results: Results) -> Iterable[list[str]]:
    ours = {row.setting: row for row in _ran(results) if row.name == OURS}
    peers = [row for row in _ran(results) if row.name != OURS and row.precision == "fp32"]
    for setting, wanted in (("int8", 4.0), ("bf16", 2.0), ("fp32", 1.1)):
        if setting not in ours or not peers:
            yield [f"throughput of {setting} over the best peer, 16 connections", f"{wanted}", "not measured here"]
            continue
        best = max(peers, key=lambda row: row.rate(16))
        what = f"throughput of {setting} over the best peer ({best.name}, {best.setting}), 16 connections"
        yield [what, f"at least {wanted}", f"{ours[setting].rate(16) / best.rate(16):.2f}"]
    for row in _ran(results):
        if row.name != OURS and row.precision == "int8" and "int8" in ours:
            what = f"throughput of int8 over {row.name} ({row.setting}), 16 connections"
            yield [what, "for comparison", f"{ours['int8'].rate(16) / row.rate(16):.2f}"]


def _of_ours(results: Results) -> Iterable[list[str]]:
    for row in _ran(results):
        if row.name == OURS:
            alone, *others = [f"{row.of_bare(each):.3f}" for each in row.connections]
            yield [f"{row.setting}: share of the bare network's rate at 1 connection", "at least 0.95", alone]
            what = f"{row.setting}: share of the bare network's rate at 4 connections and more"
            yield [what, "at least 1.0", ", ".join(others)]
            yield [f"{row.setting}: start to first answer", "at most 3 s", f"{row.start_seconds:.1f} s"]
            yield [f"{row.setting}: peak memory", "at most 700 MiB", f"{row.peak_mib:.0f} MiB"]


def _below_and_idle(results: Results) -> Iterable[list[str]]:
    for pace in results.paces:
        what = f"{pace.precision}: p99 / p50 at {pace.share:.0%} of capacity, {pace.arrivals} arrivals"
        yield [what, "at most 1.5", f"{pace.p99_ms / pace.p50_ms:.2f}"]
    for idle in results.idle:
        what = f"{idle.precision}: time added to decoding and the network by an idle service"
        yield [what, "at most 2 ms", f"{idle.above_ms:.1f} ms"]


def _below_capacity(results: Results) -> str:
    rows = [
        [pace.precision, f"{pace.arrivals}, {pace.share:.0%} of capacity", f"{pace.p50_ms:.0f}", f"{pace.p99_ms:.0f}"]
        for pace in results.paces
    ]
    rows += [
        [
            idle.precision,
            f"one at a time (decoding and network alone: {idle.bare_ms:.0f} ms)",
            f"{idle.http_ms:.0f}",
            "",
        ]
        for idle in results.idle
    ]
    return table(["precision", "arrivals", "p50, ms", "p99, ms"], rows)


def _training(results: Results) -> str:
    shares = ", ".join(f"{each:.2f}" for each in results.training)
    return f"Time of the passes alone divided by the time of an epoch, by round: {shares}."


def draw_throughput(results: Results) -> Figure:
    """Plot answers per second by number of connections; one line for each contender, bare rates as levels."""
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for row in _ran(results):
        rates = [row.rate(each) for each in row.connections]
        style = "o-" if row.name == OURS else "x--"
        axes.plot(row.connections, rates, style, label=f"{row.name}, {row.setting}")
    for precision in dict.fromkeys(row.precision for row in _ran(results)):
        bare = [rate for row in _ran(results) if row.precision == precision for rate in row.bare_rates]
        axes.axhline(median(bare), color="grey", linestyle=":")
        axes.annotate(f"bare {precision}", (1, median(bare)), fontsize=8, va="bottom")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_connections(results), [f"{each}" for each in _connections(results)])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("connections")
    axes.set_ylabel("answers per second")
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
