"""Hostile uploads and floods of connections, while good slices are sent."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx2
import psutil

from tests.support.files.bombs import BOMBS
from tests.support.files.hostile import corpus
from tests.support.processes.client import png
from tests.support.processes.floods import floods
from tests.support.processes.server import Server

_RETURN_SECONDS = 90
"""Longest wait until the service has returned memory, which it does every half a minute."""


@dataclass
class Outcome:
    """Outcome of an attack.

    Attributes:
        before, peak, after: MiB of all processes together, each shared page once.
        usual_seconds: of each good slice while as many connections send good slices only.
        statuses: of the hostile uploads.
        probabilities: of the good slices; the status instead for one that failed.
        seconds: of the good slices.
    """

    before: float = 0.0
    peak: float = 0.0
    after: float = 0.0
    usual_seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    probabilities: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def memory_mib(server: Server) -> float:
    """Memory of all processes of a service: its own pages count once, those of files (libraries) by the first process.

    Pages of files are shared with other services on the machine, so their part in PSS changes when another one ends.
    """
    family = [server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children(recursive=True))]
    sizes = [_sizes_kib(pid) for pid in family]
    files = sizes[0]["Rss"] - sizes[0]["Anonymous"]
    return (files + sum(size["Pss_Anon"] + size["Pss_Shmem"] for size in sizes if size)) / 1024


def _sizes_kib(pid: int) -> dict[str, int]:
    """Read the sums of a process's memory maps in KiB; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


def attack(server: Server, uploads: int, bombs_of_each: int, connections: int = 16) -> Outcome:
    """Send hostile uploads and bombs in a random order, all floods of connections, and good slices all the time.

    Before, as many connections send good slices only, to measure their usual time under load.
    """
    files = [case.content for case in corpus() if case.content_type is None]
    hostile = [files[number % len(files)] for number in range(uploads)]
    hostile += [data for _, make in BOMBS.values() for data in [make()] * bombs_of_each]
    Random(0).shuffle(hostile)
    usual, outcome = Outcome(), Outcome()
    _send_all(server, [png()] * max(20 * connections, uploads // 4), connections, usual)
    outcome.before, outcome.usual_seconds = memory_mib(server), usual.seconds
    with floods(server.port):
        outcome.statuses = _send_all(server, hostile, connections, outcome)
    until = time.monotonic() + _RETURN_SECONDS
    while (memory := memory_mib(server)) > 1.05 * outcome.before and time.monotonic() < until:
        time.sleep(1)
    outcome.after = memory
    return outcome


def _send_all(server: Server, uploads: Sequence[bytes], connections: int, outcome: Outcome) -> set[int]:
    """Send uploads, and good slices meanwhile; return the statuses of the uploads."""
    done = threading.Event()
    others = [threading.Thread(target=target, args=(server, outcome, done)) for target in (_watch, _send_good)]
    for thread in others:
        thread.start()
    with httpx2.Client(base_url=server.url, timeout=120) as client, ThreadPoolExecutor(connections) as pool:
        statuses = set(pool.map(lambda data: _post(client, data).status_code, uploads))
    done.set()
    for thread in others:
        thread.join()
    return statuses


def _post(client: httpx2.Client, data: bytes) -> httpx2.Response:
    files = {"image": ("a", data)}
    return client.post("/predict", files=files, headers={"Connection": "close"})  # idle ones may be closed at any time


def _send_good(server: Server, outcome: Outcome, done: threading.Event) -> None:
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        while not done.wait(0.2):
            began = time.monotonic()
            answer = _post(client, png())
            outcome.seconds.append(time.monotonic() - began)
            outcome.probabilities.append(
                answer.json()["probability"] if answer.status_code == 200 else answer.status_code
            )


def _watch(server: Server, outcome: Outcome, done: threading.Event) -> None:
    while not done.wait(0.5):
        outcome.peak = max(outcome.peak, memory_mib(server))
