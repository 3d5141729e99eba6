"""Rows of an archive's files on the machines of a Ray cluster, through Ray Data."""

import hashlib
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from covid_ct.archive.parts import FileRows
from covid_ct.counts import Counts
from covid_ct.engines import Engine, LocalEngine
from covid_ct.errors import ClientError
from covid_ct.files.sources import Source, read_sources
from covid_ct.rows import Row
from covid_ct.slice_rows import rows_of
from service.imaging.window import Window

_TASK_RETRIES: Final = 100
"""Retries of a chunk whose worker is lost: about one a second until Ray notices that its machine is gone, which takes
half a minute. Limited, because a file may end every process."""

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
    """Files that one worker reads together.

    Attributes:
        number: place among the chunks.
        sources: files that follow each other.
        study: path of the study that they are, for one row a series; empty for one row a slice.
    """

    number: int
    sources: tuple[Source, ...]
    study: str = ""

    @property
    def key(self) -> str:
        """Identity of the study and its content."""
        keys = "".join(source.key for source in self.sources)
        return hashlib.blake2b(keys.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        number: of the chunk.
        model: name, version, start of the hash, and operating point.
        rows: of all files, in their order.
        files: one for each source, or one for the study.
        counts: numbers of slices or series by the fields of `Counts`.
        problem: why there are no rows: no model on that machine; else empty.
    """

    number: int
    model: str
    rows: tuple[Row, ...]
    files: tuple[FileRows, ...]
    counts: Counts
    problem: str = ""


def rows_of_chunk(chunk: Chunk, engine: Engine, window: Window) -> ChunkRows:
    """Read the files of a chunk and predict; a failure is a row."""
    from covid_ct.series_rows import rows_of_study, study_row

    rows: list[Row] = []
    files: list[FileRows] = []
    counts = Counts()
    if chunk.study:
        rows += rows_of_study(
            study_row(chunk.study, chunk.sources, engine, window), chunk.sources, engine, window, counts
        )
        files.append(FileRows(chunk.key, len(rows), counts.failed))
    else:
        for source, contents in read_sources(chunk.sources):
            start, failed = len(rows), counts.failed
            rows += rows_of(contents, engine, window, counts, Counter())
            files.append(FileRows(source.key, len(rows) - start, counts.failed - failed))
    model = f"{engine.model}, operating point {engine.operating_point}"
    return ChunkRows(chunk.number, model, tuple(rows), tuple(files), counts)


@contextmanager
def ray_cluster(address: str | None) -> Iterator["RayCluster"]:
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
        raise ClientError("--engine ray needs Ray: in a clone, pip install '.[ray]'") from None
    try:
        with _silent_descriptor(2):  # Ray's native code says there that it has read RAY_BACKEND_LOG_LEVEL
            ray.init(
                address=address, include_dashboard=None if address else False, log_to_driver=False, logging_level=40
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ClientError(f"no Ray cluster at {address or 'this machine'}: {line}") from error
    try:
        yield RayCluster()
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


class RayCluster:
    """Actors of Ray Data: one a GPU if the cluster has GPUs, else one a CPU.

    Attributes:
        size: number of actors.
    """

    def __init__(self) -> None:
        import ray

        resources = ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0))
        self.size = self._gpus or max(1, int(resources.get("CPU", 1)))

    def rows(self, chunks: Sequence[Chunk], settings: WorkerSettings) -> Iterator[ChunkRows]:
        """Yield the rows of every chunk once, in any order; a chunk whose machine is lost goes to another one.

        Raises:
            ClientError: no model on a machine, or the cluster is lost.
        """
        import ray
        from ray.exceptions import RayError

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        on_gpus = self._gpus > 0 and settings.device != "cpu"
        items = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]  # JSON has no names that are not Unicode
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.64 will have another way to limit retries
            results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Worker,
                fn_constructor_args=(settings, None if on_gpus else 1),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=self.size, max_size=self.size),
                num_cpus=1,
                num_gpus=1 if on_gpus else 0,
                max_task_retries=_TASK_RETRIES,
            )
        try:
            for result in results.iter_rows():
                chunk: ChunkRows = pickle.loads(result["rows"])  # noqa: S301 - Ray pickles the workers themselves
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
        chunks = [pickle.loads(data) for data in batch["chunk"]]  # noqa: S301 - as above
        return {"rows": [pickle.dumps(self._rows(chunk)) for chunk in chunks]}

    def _rows(self, chunk: Chunk) -> ChunkRows:
        if self._engine is None:
            return ChunkRows(chunk.number, "", (), (), Counts(), self._problem)
        return rows_of_chunk(chunk, self._engine, self._window)
