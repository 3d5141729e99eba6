"""Installed packages: pinned, from no particular index, and without known vulnerabilities."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


def normalised(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][A-Za-z0-9.+]*)", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if pair is None]
    return {normalised(pair[1]): pair[2] for pair in pairs if pair is not None}


def test_every_direct_dependency_has_a_range_and_a_version_that_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    requirements = [line for line in everything if not line.startswith("covid-ct")]
    names = [re.match(r"[A-Za-z0-9_.-]+", line) for line in requirements]
    assert all(">=" in line for line in requirements)
    assert {normalised(name[0]) for name in names if name} <= pinned().keys()


def test_no_version_comes_from_an_address() -> None:
    for name in ("constraints.txt", "pyproject.toml"):
        assert not re.search(r"(https?|git\+|file)[:+]", (ROOT / name).read_text())


def test_no_version_has_a_known_vulnerability() -> None:
    """Asks the vulnerability service that pip-audit asks, where it can be reached."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=300)
    if not done.stdout.startswith("{"):
        pytest.skip(f"the vulnerability service can't be reached here: {done.stderr.strip()[-200:]}")
    rows = json.loads(done.stdout)["dependencies"]
    audited = [row for row in rows if "skip_reason" not in row]
    if not audited:
        pytest.skip("the vulnerability service knows no package here: it can't be reached")
    assert not {row["name"]: [flaw["id"] for flaw in row["vulns"]] for row in audited if row["vulns"]}
