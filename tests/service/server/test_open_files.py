"""Connections have as many open files as they need."""

import subprocess
import sys

SCRIPT = """
import resource
from service.server.open_files import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1000))
allow_connections({connections})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def run(connections: int) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(connections=connections)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_a_low_soft_limit_is_raised_to_what_the_connections_need() -> None:
    assert int(run(512).stdout) > 512


def test_a_hard_limit_that_is_too_low_is_named_with_what_to_change() -> None:
    error = run(900).stderr.splitlines()[-1]
    assert "COVIDCT_MAX_CONNECTIONS=900" in error
    assert "the limit is 1000" in error
