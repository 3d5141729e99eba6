"""Hostile uploads at many connections, while good slices are sent."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx2
import psutil

from tests.support.files.bombs import BOMBS
from tests.support.files.hostile import corpus
from tests.support.processes.client import png
from tests.support.processes.server import Server


@dataclass
class Outcome:
    """What became of an attack.

    Attributes:
        statuses: of the hostile uploads.
        good: probability and seconds of each good slice; the status in place of the probability of a failed one.
        usual_seconds: the longest of good slices sent at the same rate without an attack.
        before, peak, after: MiB of all processes together, without what they share.
    """

    before: float
    usual_seconds: float
    statuses: set[int] = field(default_factory=set)
    good: list[tuple[float, float]] = field(default_factory=list)
    peak: float = 0.0
    after: float = 0.0


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
    """Send so many hostile uploads and bombs in a random order, and good slices all the time."""
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        usual = [_send_good(client)[1] for _ in range(20)]
        outcome = Outcome(memory_mib(server), max(usual))
        files = [case.content for case in corpus() if case.content_type is None]
        hostile = [files[number % len(files)] for number in range(uploads)]
        hostile += [data for _, make in BOMBS.values() for data in [make()] for _ in range(bombs_of_each)]
        Random(0).shuffle(hostile)
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(server, outcome, done))
        sender = threading.Thread(target=_send_all_good, args=(server, outcome, done))
        watcher.start()
        sender.start()
        with ThreadPoolExecutor(connections) as pool:
            outcome.statuses = set(pool.map(lambda data: _send(server, data), hostile))
        done.set()
        sender.join()
        watcher.join()
    outcome.after = memory_mib(server)
    return outcome


def _send(server: Server, data: bytes) -> int:
    return httpx2.post(f"{server.url}/predict", files={"image": ("a", data)}, timeout=120).status_code


def _send_good(client: httpx2.Client) -> tuple[float, float]:
    began = time.monotonic()
    answer = client.post("/predict", files={"image": ("good.png", png())})
    seconds = time.monotonic() - began
    return (answer.json()["probability"] if answer.status_code == 200 else answer.status_code), seconds


def _send_all_good(server: Server, outcome: Outcome, done: threading.Event) -> None:
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        while not done.wait(0.2):
            outcome.good.append(_send_good(client))


def _watch(server: Server, outcome: Outcome, done: threading.Event) -> None:
    while not done.wait(0.1):
        outcome.peak = max(outcome.peak, memory_mib(server))
