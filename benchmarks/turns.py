"""One turn of a contender: start, wait for a response, load, stop."""

import subprocess
from pathlib import Path
from typing import Final

from benchmarks.bare import BareLoop
from benchmarks.contenders import Contender
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
    loads, rates = {}, {}
    with contender.running(log) as process, PeakMemory(process) as memory:
        started = wait_for_response(process, contender.url, image.read_bytes())
        load_with_wrk(contender.url, image, *_WARM_UP)
        for connections in CONNECTIONS:
            wait_until_idle(process)
            rates[connections] = bare.rate(_BARE_SECONDS)
            loads[connections] = load_with_wrk(contender.url, image, connections, seconds)
            say(f"  {connections} connections: {loads[connections].rate:.2f}/s, bare {rates[connections]:.2f}/s")
    return Visit(start_seconds=started, peak_mib=memory.mib, bare_rate=rates, loads=loads)
