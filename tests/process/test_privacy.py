"""Nothing of an upload leaves the service but in its answer: watched from outside, by every system call."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.support.files.dicoms import ct, phantom
from tests.support.networks.tiny import write_models
from tests.support.processes.client import noise
from tests.support.processes.server import running

MARKER = "Doe-Jane-19610203"
"""In the file's name, its bytes and its DICOM tags: what a careless log line or temporary file would hold."""

CALLS = (
    "write,writev,pwrite64,sendto,sendmsg,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat"
)


def strace(log: Path) -> list[str]:
    """Whole strings, all threads and processes, kinds of descriptors; the service stays the child of the test."""
    options = ["-D", "-f", "-yy", "--seccomp-bpf", "-qq", "-s", "100000000", "-e", f"trace={CALLS}", "-o", str(log)]
    return ["strace", *options]


def may_trace() -> bool:
    return (
        shutil.which("strace") is not None
        and not subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"]).returncode
    )


@pytest.mark.skipif(not may_trace(), reason="needs strace and the right to use it")
def test_no_byte_and_no_name_of_an_upload_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # modules imported at the first upload would be compiled
    write_models(tmp_path / "models")
    trace = tmp_path / "trace"
    good, bad = noise(1500) + MARKER.encode(), MARKER.encode() * 1000
    assert len(good) > 1024**2  # above what form parsers spool to a file
    with running(tmp_path / "models", under=strace(trace), log_level="DEBUG") as server:
        began = trace.stat().st_size
        statuses = set()
        scan = ct(phantom(), PatientName=MARKER, PatientID=MARKER, InstitutionName=MARKER)
        assert MARKER.encode() in scan
        for data in (good, bad, good[:-2000], scan, scan[:-2000]):
            for _ in range(2):
                files = {"image": (f"{MARKER}.png", data, f"image/{MARKER}")}
                statuses.add(httpx2.post(f"{server.url}/predict", files=files, timeout=60).status_code)
        metrics = httpx2.get(f"{server.url}/metrics").text
        _, output = server.stop()
    to_decoders = re.compile(rb"(write|writev|sendto|sendmsg)\(\d+<UNIX-STREAM:")  # sockets of its own processes
    lines = trace.read_bytes()[began:].splitlines()
    calls = b"\n".join(line for line in lines if not to_decoders.search(line[:200]))
    assert statuses == {200, 415, 422}
    assert b"HTTP/1.1 200 OK" in calls, "the trace holds what was sent"
    assert MARKER.encode() not in calls
    assert b"O_CREAT" not in calls
    assert MARKER not in output
    assert MARKER not in metrics
