"""Ray clusters of two nodes, each from `ray start` with one CPU of this machine; figures of docs/performance.md."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from covid_ct.archive.parts import MANIFEST
from tests.covid_ct.test_archive import text_of
from tests.support.files.archives import write_mixed, write_slices
from tests.support.processes.ray_cluster import Cluster, cluster_of
from tests.support.processes.server import ROOT

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.soak


def tell(what: str) -> None:
    print(f"\n  soak: {what}", flush=True)


def command(archive: Path, models: Path, output: Path, cluster: Cluster | None = None) -> list[str]:
    own = [sys.executable, "-m", "covid_ct", "predict", str(archive), "--models", str(models), "--output", str(output)]
    return [*own, "--engine", "ray", "--ray-address", cluster.address] if cluster else own


def answer(archive: Path, models: Path, output: Path, cluster: Cluster | None = None) -> float:
    """Answer an archive and return the slices a second once the workers run; 0 for the local engine."""
    environment = cluster.environment if cluster else None
    done = subprocess.run(
        command(archive, models, output, cluster),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode in (0, 1), done.stderr
    rate = re.search(r"([\d.]+) slices a second", done.stderr)
    return float(rate[1]) if rate else 0.0


def test_ray_on_this_machine_gives_the_rows_of_the_local_engine_and_continues(models: Path, tmp_path: Path) -> None:
    """Without an address: a Ray for this run alone."""
    archive = write_mixed(tmp_path / "in", 20)
    answer(archive, models, tmp_path / "rows.csv")
    own = [*command(archive, models, tmp_path / "out"), "--engine", "ray"]
    first, second = (subprocess.run(own, cwd=ROOT, capture_output=True, text=True, timeout=240) for _ in range(2))
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert sorted(text_of(tmp_path / "out").splitlines()) == sorted(rows)  # those that failed are at the end now
    assert "1 other files skipped" in first.stderr
    assert "in the output already" in second.stderr
    for done in (first, second):
        assert [line for line in done.stderr.splitlines() if "Research software" not in line] == []


def test_two_nodes_answer_nearly_twice_as_fast_as_one_and_the_same(tmp_path: Path) -> None:
    """The model that ships, 400 slices of 320 x 320."""
    archive = write_slices(tmp_path / "in", 400, 320)
    rates = {}
    for nodes in (1, 2):
        with cluster_of(nodes) as cluster:
            rates[nodes] = answer(archive, ROOT / "models", tmp_path / f"{nodes}", cluster)
    tell(f"slices a second: one node {rates[1]:.2f}, two nodes {rates[2]:.2f}, {rates[2] / rates[1]:.2f} times")
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    assert rates[2] >= 1.8 * rates[1]


def test_a_killed_node_loses_no_row_and_repeats_none(models: Path, tmp_path: Path) -> None:
    archive = write_slices(tmp_path / "in", 2500)
    answer(archive, models, tmp_path / "local.csv")
    output = tmp_path / "out"
    with cluster_of(2) as cluster:
        with subprocess.Popen(
            command(archive, models, output, cluster), cwd=ROOT, env=cluster.environment, stderr=subprocess.PIPE
        ) as running:
            while not (output / MANIFEST).is_file() or (output / MANIFEST).read_text().count("\n") < 2:
                assert running.poll() is None
                time.sleep(0.05)
            cluster.kill(1)
            killed = time.monotonic()
            assert running.stderr is not None
            tell(f"{running.stderr.read().decode().splitlines()[-1]}")
        assert running.returncode in (0, 1)
        tell(f"finished {time.monotonic() - killed:.0f} s after one of two nodes was killed")
    assert text_of(output) == (tmp_path / "local.csv").read_text()


def test_three_hundred_slices_of_all_kinds_are_the_rows_of_the_local_engine(models: Path, tmp_path: Path) -> None:
    archive = write_mixed(tmp_path / "in", 300)
    answer(archive, models, tmp_path / "local.csv")
    with cluster_of(2) as cluster:
        answer(archive, models, tmp_path / "out", cluster)
    assert text_of(tmp_path / "out") == (tmp_path / "local.csv").read_text()
    lines = text_of(tmp_path / "out").count("\n") - 1
    files = sum(
        len(json.loads(line).get("files", [])) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()
    )
    tell(f"{lines} rows of {files} files are equal byte for byte")
    assert lines > 300


def test_memory_does_not_grow_with_the_archive(models: Path, tmp_path: Path) -> None:
    peaks = {}
    for count in (400, 4000):
        archive = write_slices(tmp_path / f"in{count}", count)
        with cluster_of(1) as cluster:
            running = subprocess.Popen(
                command(archive, models, tmp_path / f"out{count}", cluster),
                cwd=ROOT,
                env=cluster.environment,
                stderr=subprocess.DEVNULL,
            )
            peaks[count] = peak_of(running, cluster)
            assert running.returncode in (0, 1)
        assert text_of(tmp_path / f"out{count}").count("\n") == count + 1
        tell(f"{count} slices: peak MiB {', '.join(f'{name} {size >> 20}' for name, size in peaks[count].items())}")
    for name in ("command", "worker"):
        assert peaks[4000][name] < peaks[400][name] + (64 << 20)


def peak_of(running: "subprocess.Popen[bytes]", cluster: Cluster) -> dict[str, int]:
    """Largest resident set of the command, of the worker, and of all of Ray together, in bytes, until it ends."""
    peaks = {"command": 0, "worker": 0, "Ray altogether": 0}

    def sample() -> None:
        while running.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peaks["command"] = max(peaks["command"], psutil.Process(running.pid).memory_info().rss)
            sizes = []
            for process in cluster.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    sizes.append(process.memory_info().rss)
                    if "MapWorker" in " ".join(process.cmdline()[:1]):
                        peaks["worker"] = max(peaks["worker"], sizes[-1])
            peaks["Ray altogether"] = max(peaks["Ray altogether"], sum(sizes))
            time.sleep(0.3)

    sampler = threading.Thread(target=sample)
    sampler.start()
    running.wait(900)
    sampler.join()
    return peaks
