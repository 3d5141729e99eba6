"""Number of processors that this process may use: its affinity, limited by the quotas of its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_processors(root: Path = Path("/")) -> int:
    """Count the usable processors, from control groups of version 1 and 2, also nested ones.

    Args:
        root: folder with `proc` and `sys`, for tests.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of each group from this process's up to the mounted one, in processors; none is unlimited."""
    groups = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if not controllers:
            folders, read = [groups, groups / "unified"], _quota_of_version_2
        elif "cpu" in controllers:
            folders, read = [groups / ",".join(controllers), groups / "cpu"], _quota_of_version_1
        else:
            continue
        for folder in folders:
            for group in (path, *path.parents):
                quota = read(folder / group.relative_to("/"))
                if quota is not None:
                    yield quota


def _memberships(root: Path) -> Iterator[tuple[list[str], PurePosixPath]]:
    """Yield controllers and path of each hierarchy; version 2 has no controllers here."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container without a cgroup namespace, the path is the host's, and only its mounted end exists here.
        yield controllers.split(",") if controllers else [], PurePosixPath("/", *_without_parents(path))


def _without_parents(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", "..")]


def _quota_of_version_2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or `max` for no quota
        return None


def _quota_of_version_1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
