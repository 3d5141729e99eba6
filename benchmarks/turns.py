"""One turn of a contender: start, wait for a response, load, stop."""

import subprocess
from pathlib import Path
from typing import Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.bare import BareLoop
from benchmarks.contenders import OURS, Contender
from benchmarks.load import PeakMemory, load_with_wrk, wait_for_response, wait_until_idle
from benchmarks.results import Row, Visit
from training.run.progress import say

CONNECTIONS: Final = (1, 4, 16, 64)
_BARE_SECONDS: Final = 3.0
_WARM_UP: Final = (4, 3)
"""Connections and seconds before the measurement, so that every worker has responded once."""


def take_turn(contender: Contender, row: Row, bare: BareLoop, image: Path, seconds: int, work: Path) -> Row:
    """Start, load and stop a contender, and return its row with the results; after a failure it is skipped."""
    if row.failure:
        return row
    log = work / "log"
    say(f"{contender.name}, {contender.setting}")
    try:
        visit = _visit(contender, bare, image, seconds, log)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        say(f"  failed: {error}; end of its log:\n{log.read_text()[-2000:]}")
        return row.model_copy(update={"failure": f"{error}"})
    return row.model_copy(update={"visits": [*row.visits, visit]})


def _visit(contender: Contender, bare: BareLoop, image: Path, seconds: int, log: Path) -> Visit:
    loads, rates, stages = {}, {}, {}
    with contender.running(log) as process, PeakMemory(process) as memory:
        started = wait_for_response(process, contender.url, image.read_bytes())
        load_with_wrk(contender.url, image, *_WARM_UP)
        for connections in CONNECTIONS:
            wait_until_idle(process)
            rates[connections] = bare.rate(_BARE_SECONDS)
            before = _stages(contender)
            loads[connections] = load_with_wrk(contender.url, image, connections, seconds)
            stages[connections] = _means(before, _stages(contender))
            say(f"  {connections} connections: {loads[connections].rate:.2f}/s, bare {rates[connections]:.2f}/s")
    return Visit(start_seconds=started, peak_mib=memory.mib, bare_rate=rates, loads=loads, stages_ms=stages)


def _stages(contender: Contender) -> dict[str, tuple[float, float]]:
    """Read seconds and count of each stage from the service's metrics; empty for peers."""
    if contender.name != OURS:
        return {}
    text = httpx2.get(f"{contender.origin}/metrics").raise_for_status().text
    stages: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        if family.name == "covidct_stage_duration_seconds":
            for sample in family.samples:
                stages.setdefault(sample.labels["stage"], {})[sample.name.rpartition("_")[2]] = sample.value
    return {stage: (values["sum"], values["count"]) for stage, values in stages.items()}


def _means(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the mean milliseconds of each stage between two readings."""
    means = {}
    for stage, (seconds, count) in after.items():
        seconds_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            means[stage] = round(1000 * (seconds - seconds_before) / (count - count_before), 3)
    return means
