"""Decoding in processes that can be ended: the same slices, and what happens to files and workers that go wrong."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from service.errors import OverloadedError, ServiceError, UnsupportedImageError, UnusableImageError
from service.imaging.cage import worker_process
from service.imaging.cage.cage import Cage
from service.imaging.cage.ending import Ending
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.limits import CageLimits
from service.imaging.decode import DecodeLimits, decode, to_input
from tests.support.files.bombs import jpeg_of_many_scans
from tests.support.files.dicoms import ct, phantom
from tests.support.files.hostile import honest_oddities
from tests.support.files.lying_files import encoded
from tests.support.processes.client import png
from tests.support.processes.family import is_running, used
from tests.support.processes.server import ROOT

ENDLESS = jpeg_of_many_scans(scans=100_000)
"""Takes many minutes."""


class Caged(Cage):
    """A cage with a fork server of its own, and the endings that it counts."""

    def __init__(self, processes: int, limits: CageLimits) -> None:
        self.server = ForkServer()
        self.endings: list[Ending] = []
        super().__init__(self.server, limits, processes, self.endings.append)

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.server.process_id).children() if is_running(child)]

    async def busy_worker(self) -> psutil.Process:
        """A worker of the last lane: it has decoded for longer than the others may."""
        busy: list[psutil.Process] = []

        def is_one_busy() -> bool:
            busy.extend(worker for worker in self.workers() if used(worker) > 0.7)
            return bool(busy)

        await until(is_one_busy)
        return busy[0]


@asynccontextmanager
async def caged(processes: int = 1, **limits: float) -> AsyncIterator[Caged]:
    cage = Caged(processes, CageLimits(**limits))  # type: ignore[arg-type]
    try:
        await cage.start()
        yield cage
    finally:
        cage.close()
        cage.server.close()


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_every_kind_of_picture_comes_back_bit_by_bit() -> None:
    async with caged() as cage:
        for case in honest_oddities():
            try:
                expected = decode(case.content)
            except ServiceError as error:
                with pytest.raises(type(error), match=error.code):
                    await cage.decode(case.content)
                continue
            decoded = await cage.decode(case.content, input_size=64)
            np.testing.assert_array_equal(decoded.slice_, expected, case.name)
            np.testing.assert_array_equal(decoded.network_input, to_input(expected, 64), case.name)


@pytest.mark.anyio
async def test_errors_of_a_file_keep_their_kind_code_and_text() -> None:
    async with caged() as cage:
        with pytest.raises(UnusableImageError, match="0 bytes were received") as empty:
            await cage.decode(b"")
        with pytest.raises(UnsupportedImageError, match="PDF"):
            await cage.decode(b"%PDF-1.7")
        before = cage.workers()
        with pytest.raises(UnusableImageError, match="96 x 96, and the limit is 5"):
            await cage.decode(encoded(Image.new("L", (96, 96)), "PNG"), DecodeLimits(max_pixels=5))
        assert empty.value.code == "empty_file"
        assert cage.workers() == before, "an honest refusal costs no process"
        for _ in range(4):
            with pytest.raises(UnusableImageError, match="damaged"):
                await cage.decode(png()[:70])
        assert cage.endings == []


@pytest.mark.anyio
async def test_a_fault_of_the_program_is_no_error_of_the_file_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with caged() as cage:
        with pytest.raises(ServiceError) as refused:
            await cage.decode(png(), input_size=-1)
    assert (refused.value.status, refused.value.code) == (500, "internal_error")
    assert caplog.records[-1].__dict__["fields"]["place"].startswith("ValueError at ")


@pytest.mark.anyio
async def test_a_file_that_needs_too_much_time_is_refused_by_name_and_its_worker_is_replaced() -> None:
    async with caged(seconds=0.5) as cage:
        with pytest.raises(UnusableImageError, match=r"more than 0\.5 seconds of processor time") as refused:
            await cage.decode(ENDLESS)
        assert refused.value.code == "limit_exceeded"
        assert cage.endings == [Ending.TIME]
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


@pytest.mark.anyio
async def test_a_decoder_that_does_not_end_is_a_refusal_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_WALL_SECONDS", 0.0)
    async with caged(seconds=0.04) as cage:
        (worker,) = cage.workers()
        worker.suspend()
        with pytest.raises(UnusableImageError, match="takes too long") as refused:
            await cage.decode(png())
        worker.kill()
    assert refused.value.code == "limit_exceeded"
    assert cage.endings == [Ending.STUCK]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
async def test_a_large_honest_file_passes_through_the_lanes_and_no_worker_keeps_its_memory(kind: str) -> None:
    """Without the memory of the last lane, the decoder of WebP calls it damaged."""
    async with caged() as cage:
        large = encoded(Image.new("RGBA", (4096, 4096), (9, 9, 9, 9)), kind)
        assert (await cage.decode(large)).slice_.shape == (1, 4096, 4096)
        assert cage.endings == []
        await until(lambda: all(worker.memory_info().rss < 60 * 1024**2 for worker in cage.workers()))


@pytest.mark.anyio
async def test_a_file_that_needs_too_much_memory_is_refused_by_name() -> None:
    async with caged(memory_bytes=64 * 1024**2) as cage:
        with pytest.raises(UnusableImageError, match="more than 64 MiB of memory") as refused:
            await cage.decode(encoded(Image.new("RGBA", (4096, 4096)), "PNG"))
        assert refused.value.code == "limit_exceeded"
        assert cage.endings == [Ending.MEMORY]
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


LITTLE_MEMORY = """
import asyncio, resource, sys
from pathlib import Path
from service.errors import ServiceError
from service.imaging.cage.fork_server import ForkServer
from service.imaging.cage.cage import Cage

async def main():
    server = ForkServer()
    cage = Cage(server)
    resource.setrlimit(resource.RLIMIT_AS, (400 * 1024**2, 400 * 1024**2))
    try:
        await cage.decode(Path(sys.argv[1]).read_bytes())
    except ServiceError as error:
        print(error.status, error.code)
    server.close()

asyncio.run(main())
"""


def test_too_little_memory_of_the_machine_is_no_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "large.webp"
    Image.new("RGBA", (4096, 4096), (9, 9, 9, 9)).save(file, lossless=True)
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY, file], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "503 out_of_memory\n", done.stderr


@pytest.mark.anyio
async def test_a_worker_killed_while_idle_is_replaced() -> None:
    async with caged(2) as cage:
        for worker in cage.workers():
            worker.kill()
        await until(lambda: not cage.workers())
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)
        assert cage.endings == []


@pytest.mark.anyio
async def test_a_decode_whose_worker_is_killed_is_tried_again_and_no_other_is_touched() -> None:
    slow = jpeg_of_many_scans(scans=4000)
    async with caged(2, seconds=60) as cage:
        decoding = asyncio.create_task(cage.decode(slow))
        quick = set(cage.workers())
        await until(lambda: set(cage.workers()) != quick or any(used(worker) > 0.05 for worker in cage.workers()))
        for worker in quick:
            if is_running(worker) and used(worker) > 0.02:
                worker.kill()
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)
        worker = await cage.busy_worker()
        worker.kill()
        with pytest.raises(OverloadedError) as refused:
            await decoding
        assert refused.value.status == 503
        assert cage.endings == [Ending.KILLED]
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_a_decoder_that_crashes_fails_only_its_own_file(number: signal.Signals) -> None:
    async with caged(seconds=60) as cage:
        decoding = asyncio.create_task(cage.decode(ENDLESS))
        (await cage.busy_worker()).send_signal(number)
        with pytest.raises(UnusableImageError, match="a decoder crashed on it") as refused:
            await decoding
        assert refused.value.code == "damaged_image"
        assert cage.endings == [Ending.CRASH]
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


@pytest.mark.anyio
async def test_a_decode_that_nobody_waits_for_is_ended() -> None:
    async with caged(seconds=60) as cage:
        decoding = asyncio.create_task(cage.decode(ENDLESS))
        worker = await cage.busy_worker()
        decoding.cancel()
        await until(lambda: not is_running(worker))
        assert cage.endings == [Ending.CANCELLED]
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


@pytest.mark.anyio
async def test_a_fork_server_that_was_killed_is_started_again() -> None:
    async with caged() as cage:
        server = psutil.Process(cage.server.process_id)
        server.kill()
        server.wait()
        assert not cage.is_healthy
        await until(lambda: cage.is_healthy)
        assert (await cage.decode(png())).slice_.shape == (1, 64, 64)


@pytest.mark.anyio
async def test_a_worker_has_no_files_no_sockets_no_processes_no_secrets_and_no_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COVIDCT_API_KEYS", "a secret")
    async with caged() as cage:
        await cage.decode(ct(phantom()))
        (worker,) = cage.workers()
        limits = {
            kind: worker.rlimit(getattr(psutil, kind)) for kind in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE")
        }
        assert set(limits.values()) == {(0, 0)}
        assert "COVIDCT_API_KEYS" not in worker.environ()
        assert not any("torch" in mapped.path for mapped in worker.memory_maps())
        assert worker.memory_info().rss < 60 * 1024**2
