"""Answers of an archive's files on the machines of a Ray cluster, through Ray Data."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from covid_ct.archive.parts import AnsweredFile
from covid_ct.engines import Engine, LocalEngine
from covid_ct.errors import ClientError
from covid_ct.predict import Counts, rows_of
from covid_ct.rows import Row
from covid_ct.sources import Source, read_sources
from service.imaging.window import Window

_TASK_RETRIES: Final = 100
"""Of a chunk whose worker is lost: about one a second until Ray notices that its machine is gone, which takes half a
minute. Not without limit, so that a file that ends every process does not do so for ever."""

_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster that is started here reports nothing to anyone
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Environment of Ray, unless set otherwise."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of every worker: models folder at the same path on every machine, device, window, threshold."""

    models: Path
    device: str
    window: Window
    operating_point: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Files that one worker answers together.

    Attributes:
        number: place among the chunks.
        sources: files that follow each other.
    """

    number: int
    sources: tuple[Source, ...]

    def to_json(self) -> bytes:
        """Return the chunk as JSON, which keeps names that are not Unicode."""
        return json.dumps([self.number, [astuple(source) for source in self.sources]]).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Chunk":
        """Read a chunk from `to_json`."""
        number, sources = json.loads(data)
        return cls(number, tuple(_source(*fields) for fields in sources))


def _source(path: str, named: bool, stamp: str, member: int | None, problem: list[str] | None) -> Source:
    return Source(path, named, stamp, member, (problem[0], problem[1]) if problem else None)


@dataclass(frozen=True, slots=True)
class AnsweredChunk:
    """The rows of a chunk.

    Attributes:
        number: of the chunk.
        model: name, version, start of the hash, and operating point.
        rows: of all files, in their order.
        files: one for each source.
        skipped: files in folders and zips that are not images.
        problem: why there is no answer: no model on that machine; else empty.
    """

    number: int
    model: str
    rows: tuple[Row, ...]
    files: tuple[AnsweredFile, ...]
    skipped: int
    problem: str = ""

    def to_json(self) -> bytes:
        """Return the answer as JSON."""
        return json.dumps(astuple(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "AnsweredChunk":
        """Read an answer from `to_json`."""
        number, model, rows, files, skipped, problem = json.loads(data)
        answered = tuple(AnsweredFile(*file) for file in files)
        return cls(number, model, tuple(Row(*row) for row in rows), answered, skipped, problem)


class Cluster(Protocol):
    """Answers chunks in any order, each once."""

    size: int
    """Workers."""

    def answers(self, chunks: Sequence[Chunk], settings: WorkerSettings) -> Iterator[AnsweredChunk]:
        """Yield the answer of every chunk; raises `ClientError` if there is no model or no cluster."""
        ...


def answer_chunk(chunk: Chunk, engine: Engine, window: Window) -> AnsweredChunk:
    """Read and answer the files of a chunk; a failure is a row."""
    rows: list[Row] = []
    answered: list[AnsweredFile] = []
    counts = Counts()
    for source, files in read_sources(chunk.sources):
        start, failed = len(rows), counts.failed
        rows += rows_of(files, engine, window, counts, set())
        answered.append(AnsweredFile(source.key, len(rows) - start, counts.failed - failed))
    model = f"{engine.model}, operating point {engine.operating_point}"
    return AnsweredChunk(chunk.number, model, tuple(rows), tuple(answered), counts.skipped)


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine for as long as the context lasts.

    Args:
        address: such as ray://host:10001 or host:6379; None: RAY_ADDRESS, else this machine.

    Raises:
        ClientError: the extra `ray` is missing, or there is no cluster at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ClientError("--engine ray needs Ray: pip install 'covid-ct[ray]'") from None
    try:
        with _silent_descriptor(2):  # Ray's native code says there that it has read RAY_BACKEND_LOG_LEVEL
            ray.init(
                address=address, include_dashboard=None if address else False, log_to_driver=False, logging_level=40
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ClientError(f"no Ray cluster at {address or 'this machine'}: {line}") from error
    try:
        yield _RayCluster()
    finally:
        ray.shutdown()


@contextmanager
def _silent_descriptor(number: int) -> Iterator[None]:
    """Drop what is written to this file descriptor, by native code too; errors are raised all the same."""
    kept = os.dup(number)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


class _RayCluster:
    """Actors of Ray Data: one a GPU if the cluster has GPUs, else one a CPU."""

    def __init__(self) -> None:
        import ray

        resources = ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0))
        self.size = self._gpus or max(1, int(resources.get("CPU", 1)))

    def answers(self, chunks: Sequence[Chunk], settings: WorkerSettings) -> Iterator[AnsweredChunk]:
        """See `Cluster.answers`; a chunk whose machine is lost is answered by another one."""
        import ray
        from ray.exceptions import RayError

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        on_gpus = self._gpus > 0 and settings.device != "cpu"
        rows = [{"chunk": chunk.to_json()} for chunk in chunks]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.64 will have another way to limit retries
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Worker,
                fn_constructor_args=(settings, None if on_gpus else 1),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=self.size, max_size=self.size),
                num_cpus=1,
                num_gpus=1 if on_gpus else 0,
                max_task_retries=_TASK_RETRIES,
            )
        try:
            for row in answered.iter_rows():
                chunk = AnsweredChunk.from_json(row["answer"])
                if chunk.problem:
                    raise ClientError(chunk.problem)
                yield chunk
        except RayError as error:
            raise ClientError(f"Ray: {str(error).strip().splitlines()[-1]}") from error


class _Worker:
    """An actor: the model, loaded once."""

    def __init__(self, settings: WorkerSettings, threads: int | None) -> None:
        self._window = settings.window
        self._engine: Engine | None = None
        self._problem = ""
        try:
            self._engine = LocalEngine(
                settings.models, settings.device, threads, operating_point=settings.operating_point
            )
        except ClientError as error:  # reported by the answer, since Ray would start the actor again and again
            self._problem = f"on a machine of the cluster: {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"answer": [self._answer(Chunk.from_json(data)).to_json() for data in batch["chunk"]]}

    def _answer(self, chunk: Chunk) -> AnsweredChunk:
        if self._engine is None:
            return AnsweredChunk(chunk.number, "", (), (), 0, self._problem)
        return answer_chunk(chunk, self._engine, self._window)
