"""The time that a process runs, in a process of its own whose main thread keeps the clock."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes.server import ROOT

SECONDS: Final = 3.0
"""Of the clock of the wall."""

SPIN: Final = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while True: pass
"""

PROGRAM: Final = """
import asyncio, hashlib, os, sys, threading, time
from service.inference.running_clock import RunningClock

def compute():
    data = bytes(1000_000)
    while True:
        hashlib.sha256(data)  # without the interpreter's lock

async def main():
    clock, began = RunningClock(), time.process_time()
    task = asyncio.create_task(clock.run())
    await asyncio.sleep(float(sys.argv[2]))
    print(clock.seconds, time.process_time() - began)
    os._exit(0)

os.sched_setaffinity(0, {int(sys.argv[3])})
work = {"computes": compute, "is blocked": threading.Event().wait}[sys.argv[1]]
threading.Thread(target=work, daemon=True).start()
asyncio.run(main())
"""


def counted_and_used_seconds(work: str, rivals: int = 0) -> tuple[float, float]:
    """Seconds of the clock, and of processor time, while a thread works and other processes use its processor too."""
    processor = max(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for _ in range(rivals):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", SPIN, str(processor)]))
            stack.callback(process.kill)
        command = [sys.executable, "-c", PROGRAM, work, str(SECONDS), str(processor)]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counted, used = map(float, output.split())
    return counted, used


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not count waiting")
def test_a_thread_that_gets_little_of_a_processor_is_no_hang() -> None:
    counted, _ = counted_and_used_seconds("computes", rivals=8)
    assert counted < SECONDS / 3


@pytest.mark.parametrize("rivals", [0, 3])
def test_a_thread_that_computes_for_ever_is_a_hang(rivals: int) -> None:
    counted, used = counted_and_used_seconds("computes", rivals)
    assert counted > used / 2


def test_a_thread_that_is_blocked_is_a_hang_even_on_a_busy_machine() -> None:
    counted, _ = counted_and_used_seconds("is blocked")
    assert counted > SECONDS / 2
