"""Who takes part: our service and each peer, as documented and tuned."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.environments import ROOT, make_environment
from service.artifact import Precision

OURS: Final = "covid-ct"
_PORT: Final = 8700


@dataclass(frozen=True)
class Contender:
    """A server that can be started.

    Attributes:
        name: who it is.
        setting: how it is set, for the table.
        precision: what its network computes in.
        workers: processes that compute.
        command: starts it in the foreground.
        variables: of its environment.
        path: where it takes the multipart field `image`.
    """

    name: str
    setting: str
    precision: Precision
    workers: int
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{_PORT}"

    @property
    def url(self) -> str:
        """Where slices are sent."""
        return self.origin + self.path

    @contextmanager
    def running(self, log: Path) -> Iterator[psutil.Process]:
        """Run it; at the end nothing is left of it and its children."""
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


def contenders(
    models: Path, work: Path, processors: int, precisions: list[Precision], peers: list[str]
) -> list[Contender]:
    """Everyone, ours first.

    Args:
        models: folder of the model files.
        work: folder for what peers must write.
        processors: how many the machine has; tuned, there is a worker for each, with one thread.
        precisions: that ours is measured in.
        peers: which of them take part.
    """
    rows = [_ours(models, each, each) for each in precisions]
    rows.append(_ours(models, f"fp32, {_tuning(processors)}", "fp32", processors))
    for peer in peers:
        rows.append(_peer(peer, models, work, "as documented", 1, tuned=False))
        rows.append(_peer(peer, models, work, f"tuned: {_tuning(processors)}", processors, tuned=True))
    return rows


def _tuning(workers: int) -> str:
    return f"{workers} workers of 1 thread"


def _ours(models: Path, setting: str, precision: Precision, workers: int = 1) -> Contender:
    variables = {
        "COVIDCT_MODELS_DIR": str(models),
        "COVIDCT_PORT": str(_PORT),
        "COVIDCT_DEVICE": "cpu",
        "COVIDCT_PRECISION": precision,
        "COVIDCT_REQUEST_TIMEOUT_SECONDS": "300",  # 64 requests wait longer than the default here
        "COVIDCT_WORKERS": str(workers),
    }
    if workers > 1:
        variables["COVIDCT_THREADS"] = "1"
    return Contender(OURS, setting, precision, workers, (sys.executable, "-m", "service"), variables)


def _peer(peer: str, models: Path, work: Path, setting: str, workers: int, *, tuned: bool) -> Contender:
    programs = make_environment(peer)
    variables = {
        "BENCH_MODELS": str(models),
        "BENCH_PORT": str(_PORT),
        "BENCH_WORKERS": str(workers),
        "BENCH_TUNED": str(int(tuned)),
        "PATH": f"{programs}:{os.environ['PATH']}",
        # peers that report home by default
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if tuned:
        variables |= {"OMP_NUM_THREADS": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    path = "/predictions/slices" if peer == "torchserve" else "/predict"
    command: tuple[str, ...] = (str(programs / "python"), "-m", f"benchmarks.peers.{peer}_app")
    if peer == "bentoml":
        address = ("--host", "127.0.0.1", "--port", str(_PORT))
        command = (str(programs / "bentoml"), "serve", "benchmarks.peers.bentoml_app:CovidCt", *address)
    if peer == "torchserve":
        command = _torchserve(programs, work, workers if tuned else None)
    return Contender(peer, setting, "fp32", workers, command, variables, path)


def _torchserve(programs: Path, work: Path, workers: int | None) -> tuple[str, ...]:
    """Pack the archive that it wants, and write its settings."""
    store = work / "model-store"
    store.mkdir(exist_ok=True)
    archiver = [str(programs / "torch-model-archiver"), "--model-name", "slices", "--version", "1", "--force"]
    handler = ["--handler", str(ROOT / "benchmarks" / "peers" / "torchserve_handler.py")]
    subprocess.run([*archiver, *handler, "--export-path", str(store)], check=True)
    lines = [
        f"inference_address=http://127.0.0.1:{_PORT}",
        f"management_address=http://127.0.0.1:{_PORT + 1}",
        f"metrics_address=http://127.0.0.1:{_PORT + 2}",
        "disable_token_authorization=true",
        "default_response_timeout=300",
        *([f"default_workers_per_model={workers}"] if workers else []),
    ]
    settings = work / f"torchserve-{workers or 'documented'}.properties"
    settings.write_text("\n".join(lines) + "\n")
    served = ("--model-store", str(store), "--models", "slices=slices.mar", "--ts-config", str(settings))
    return (str(programs / "torchserve"), "--foreground", "--ncs", *served)


def _end(family: list[psutil.Process]) -> None:
    for number in ("terminate", "kill"):
        for process in family:
            try:
                getattr(process, number)()
            except psutil.NoSuchProcess:
                continue
        _, family = psutil.wait_procs(family, timeout=10)
