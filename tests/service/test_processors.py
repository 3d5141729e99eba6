import os
from pathlib import Path

import pytest

from service.processors import usable_processors

ALL = len(os.sched_getaffinity(0))


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """`root` with the files of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}),
        ("0::/app/worker\n", {"cpu.max": "max 100000\n", "app/worker/cpu.max": "100000 100000\n"}),
        ("0::/app/worker\n", {"app/cpu.max": "90000 100000\n", "app/worker/cpu.max": "max 100000\n"}),
        ("0::/../worker\n", {"worker/cpu.max": "100000 100000\n"}),
        (
            "3:cpu,cpuacct:/docker/a\n0::/\n",
            {"cpu,cpuacct/docker/a/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n"},
        ),
        ("3:cpu,cpuacct:/docker/a\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}),
    ],
    ids=["v2", "v2 nested", "v2 quota of the parent", "v2 outside the namespace", "v1 nested", "v1 at the mount"],
)
def test_a_quota_of_one_processor_is_honoured(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert usable_processors(machine(tmp_path, cgroup, files)) == 1


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("3:cpu:/\n2:memory:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        ("", {}),
    ],
    ids=["v2", "v1", "no groups"],
)
def test_without_a_quota_all_processors_of_the_affinity_are_used(
    tmp_path: Path, cgroup: str, files: dict[str, str]
) -> None:
    assert usable_processors(machine(tmp_path, cgroup, files)) == ALL
    assert usable_processors(tmp_path / "nowhere") == ALL
