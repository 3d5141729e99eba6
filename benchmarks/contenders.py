"""The servers to measure: the service, and each peer as documented and tuned."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from benchmarks.environments import ROOT, make_environment
from service.model.card import Precision

OURS: Final = "covid-ct"
_PORT: Final = 8700


@dataclass(frozen=True)
class Contender:
    """A server that can be started.

    Attributes:
        setting: description of its configuration, for the table.
        path: route that takes the multipart field `image`.
    """

    name: str
    setting: str
    precision: Precision
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"

    @property
    def url(self) -> str:
        """URL to send slices to."""
        return f"http://127.0.0.1:{_PORT}{self.path}"

    @contextmanager
    def running(self, log: Path) -> Iterator[psutil.Process]:
        """Run the server; at the end, stop it and all its child processes."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVIDCT_")}
        with log.open("w") as output:
            process = subprocess.Popen(
                self.command,
                env=environment | {"PYTHONPATH": str(ROOT)} | self.variables,
                cwd=log.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            root = psutil.Process(process.pid)
            family = [root]
            try:
                yield root
                family += root.children(recursive=True)
            finally:
                _end(family)
                process.wait()


def contenders(models: Path, processors: int, precisions: list[Precision], peers: list[str]) -> list[Contender]:
    """List the servers to measure, the service first.

    Args:
        processors: number of processors; a tuned peer gets one worker with one thread for each.
        precisions: of the service.
    """
    rows = [_ours(models, precision) for precision in precisions]
    for peer in peers:
        rows.append(_peer(peer, models, "as documented", 1, tuned=False))
        if peer != "mlserver":  # its workers do not run custom routes
            rows.append(_peer(peer, models, f"tuned: {processors} workers of 1 thread", processors, tuned=True))
    return rows


def with_int8_file(peer: Contender) -> Contender:
    """Give a peer the service's int8 file, so that only the frameworks differ."""
    return replace(
        peer,
        setting=f"{peer.setting}, the service's int8 file",
        precision="int8",
        variables=peer.variables | {"BENCH_PRECISION": "int8"},
    )


def _ours(models: Path, precision: Precision) -> Contender:
    variables = {
        "COVIDCT_MODELS_DIR": str(models),
        "COVIDCT_PORT": str(_PORT),
        "COVIDCT_DEVICE": "cpu",
        "COVIDCT_PRECISION": precision,
        "COVIDCT_REQUEST_TIMEOUT_SECONDS": "300",  # with 64 connections, requests wait longer than the default
    }
    return Contender(OURS, precision, precision, (sys.executable, "-m", "service"), variables)


def _peer(peer: str, models: Path, setting: str, workers: int, *, tuned: bool) -> Contender:
    programs = make_environment(peer)
    variables = {
        "BENCH_MODELS": str(models),
        "BENCH_PORT": str(_PORT),
        "BENCH_WORKERS": str(workers),
        "BENCH_TUNED": str(int(tuned)),
        "PATH": f"{programs}:{os.environ['PATH']}",
        # these peers send usage data by default
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray ends a proxy that is not ready after 5 s, too short for a busy machine
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    if tuned:
        variables |= {"OMP_NUM_THREADS": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    command: tuple[str, ...] = (str(programs / "python"), "-m", f"benchmarks.peers.{peer}_app")
    if peer == "bentoml":
        address = ("--host", "127.0.0.1", "--port", str(_PORT))
        command = (str(programs / "bentoml"), "serve", "benchmarks.peers.bentoml_app:CovidCt", *address)
    return Contender(peer, setting, "fp32", command, variables)


def _end(family: list[psutil.Process]) -> None:
    for number in ("terminate", "kill"):
        for process in family:
            try:
                getattr(process, number)()
            except psutil.NoSuchProcess:
                continue
        _, family = psutil.wait_procs(family, timeout=10)
