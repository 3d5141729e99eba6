"""Ray clusters of several nodes on one machine, each from `ray start` with one CPU."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from tests.support.processes.server import ROOT, free_port


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes by their processes; the first one is the head. Its users need the environment, which has its token."""

    address: str
    nodes: list["subprocess.Popen[bytes]"]
    environment: dict[str, str]

    def processes(self) -> list[psutil.Process]:
        """All processes of all nodes."""
        processes = []
        for node in self.nodes:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes += psutil.Process(node.pid).children(recursive=True)
        return processes

    def kill(self, number: int) -> None:
        """End a node like a machine that loses its power: SIGKILL to every process."""
        node = self.nodes[number]
        processes = psutil.Process(node.pid).children(recursive=True)
        for process in [psutil.Process(node.pid), *processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        node.wait()


@contextlib.contextmanager
def cluster_of(count: int) -> Iterator[Cluster]:
    """Start so many nodes; on Linux each is bound to a processor of its own."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    address = f"127.0.0.1:{free_port()}"
    cores = sorted(os.sched_getaffinity(0))
    nodes: list[subprocess.Popen[bytes]] = []
    environment = dict(os.environ, RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal", PYTHONPATH=str(ROOT))
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
    cluster = Cluster(address, nodes, environment)
    try:
        for number in range(count):
            where = [
                "--head",
                "--port",
                address.partition(":")[2],
                "--temp-dir",
                folder,
                "--include-dashboard",
                "false",
            ]
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
            command += where if number == 0 else ["--address", address]
            command += ["--object-store-memory", "200000000"]
            core = cores[number % len(cores)]
            nodes.append(
                subprocess.Popen(
                    ["taskset", "-c", str(core), *command],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            _wait_for(cluster)
        yield cluster
    finally:
        for number, node in enumerate(nodes):
            if node.poll() is None:
                cluster.kill(number)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(cluster: Cluster) -> None:
    """Wait until as many nodes are alive as were started."""
    script = f"""
import ray, time
ray.init(address={cluster.address!r}, logging_level=50)
while sum(node["Alive"] for node in ray.nodes()) < {len(cluster.nodes)}:
    time.sleep(0.1)
"""
    for _ in range(4):
        time.sleep(2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script], env=cluster.environment, capture_output=True, timeout=25
            )
            if done.returncode == 0:
                return
    raise TimeoutError(f"the cluster at {cluster.address} did not start")
