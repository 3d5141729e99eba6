import json
import subprocess
import sys

from tests.support.processes.server import ROOT

PROGRAM = """
import logging, warnings
from service.server.logging import configure_logging
configure_logging("INFO")
warnings.warn("a library's words\\nin two lines", UserWarning)
logging.getLogger("some.package").warning("more of them")
raise ValueError("nobody caught this")
"""


def test_warnings_of_libraries_and_uncaught_errors_are_json_lines() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    warning, record, uncaught = (json.loads(line) for line in done.stderr.splitlines())
    assert (warning["level"], warning["category"]) == ("WARNING", "UserWarning")
    assert warning["message"] == "a library's words\nin two lines"
    assert record["logger"] == "some.package"
    assert "nobody caught this" in uncaught["exception"]
