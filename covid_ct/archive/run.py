"""Rows of an archive: files to chunks, chunks to a cluster, rows to parts in the order of files and of anatomy."""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Final

from covid_ct.archive.parts import Output, PartFormat
from covid_ct.archive.workers import Chunk, ChunkRows, RayCluster, WorkerSettings, ray_cluster
from covid_ct.counts import Counts
from covid_ct.errors import ClientError, SourceError
from covid_ct.files.sources import Source, list_sources, study_sources
from covid_ct.rows import Row, SeriesRow, in_anatomical_order, window_mark
from covid_ct.series_rows import list_studies
from service.imaging.window import LUNG, Window

CHUNK_FILES: Final = 8
"""Files that one worker reads at a time: about a second of a CPU."""

PART_FILES: Final = 1024
"""Fewest files of a part, which goes on to the end of their folder; an interrupted run loses only unfinished chunks."""

_LARGEST_PART: Final = 8 * PART_FILES

PART_STUDIES: Final = 64
"""Studies of a part by series."""

_WAVE_PARTS: Final = 16
"""Fewest parts whose files are listed and given to the cluster at once; each wave starts the workers anew."""

_PARTS_A_WORKER: Final = 4


@dataclass(slots=True)
class Progress(Counts):
    """Numbers of one run over an archive.

    Attributes:
        files, total: files that are done, and all files.
    """

    files: int = 0
    total: int = 0
    _started: float | None = None
    _before: tuple[int, int] = (0, 0)

    def add(self, chunk: ChunkRows) -> None:
        """Add the rows of a chunk; the clock starts with the first one, once the workers run."""
        self.answered += chunk.counts.answered
        self.failed += chunk.counts.failed
        self.without_lungs += chunk.counts.without_lungs
        self.skipped += chunk.counts.skipped
        self.files += len(chunk.files)
        if self._started is None:
            self._started, self._before = time.monotonic(), (self.slices, self.files)

    @property
    def slices(self) -> int:
        """Number of slices of this run."""
        return self.answered + self.failed + self.without_lungs

    def rates(self) -> tuple[float, float] | None:
        """Slices and files a second since the first chunk; None before the second one."""
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        slices, files = self.slices - self._before[0], self.files - self._before[1]
        return (slices / seconds, files / seconds) if files and seconds else None

    def line(self) -> str:
        """Return progress as one line: slices, their rate, and the remaining time by the number of files."""
        parts = f"{self.slices} slices, {self.files} of {self.total} files"
        if (rates := self.rates()) is None:
            return parts
        return f"{parts}, {rates[0]:.1f} slices a second, {_duration((self.total - self.files) / rates[1])} left"

    def summary(self) -> str:
        """Return the result as one line."""
        rates = self.rates()
        return Counts.summary(self) + (f", {rates[0]:.1f} slices a second" if rates else "")


def predict_archive(
    paths: Iterable[str],
    output: Path,
    *,
    models: Path = Path("models"),
    form: PartFormat = "csv",
    window: Window = LUNG,
    device: str = "auto",
    operating_point: str | None = None,
    by_series: bool = False,
    address: str | None = None,
    cluster: Callable[[str | None], AbstractContextManager[RayCluster]] = ray_cluster,
    show: Callable[[Progress], object] = lambda _: None,
) -> Progress:
    """Predict for every slice of an archive into a folder of parts; run it again to continue.

    Args:
        paths: files, folders, globs, zips and URIs, reachable from every machine of the cluster.
        output: folder on this machine.
        models: folder with the model, at the same path on every machine.
        form: csv or parquet.
        window: for DICOM and NIfTI.
        device: auto, cpu or cuda.
        operating_point: threshold of the model's card for the label; None: the card's own.
        by_series: one row for each series; each path, or match of a glob, is a study.
        address: of the Ray cluster; None: RAY_ADDRESS, else this machine.
        cluster: makes the rows.
        show: called after each chunk.

    Raises:
        ClientError: no model, no cluster, a URI that can't be listed, or an output of something else.
    """
    paths = list(paths)
    folder = Output.open(output, form, window_mark(window), SeriesRow if by_series else Row)
    progress = Progress(kept=folder.kept)
    for key in _keys(paths, by_series):
        progress.total += 1
        progress.files += bytes.fromhex(key) in folder.done
    if progress.files == progress.total:
        return progress
    with cluster(address) as workers:
        settings = WorkerSettings(models.absolute(), device, window, operating_point)
        most = max(_WAVE_PARTS, _PARTS_A_WORKER * workers.size)
        parts = _parts_of_studies(paths, folder.done) if by_series else _parts_of_files(paths, folder.done)
        while wave := list(islice(parts, most)):
            _collect(workers, settings, wave, folder, progress, show)
    return progress


def _keys(paths: Sequence[str], by_series: bool) -> Iterator[str]:
    if by_series:
        yield from (study.key for study in _studies(paths))
    else:
        yield from (source.key for source in list_sources(paths))


def _studies(paths: Sequence[str]) -> Iterator[Chunk]:
    for number, path in enumerate(list_studies(paths)):
        try:
            sources = study_sources(path)
        except SourceError as error:
            sources = [Source(path, named=True, problem=(error.code, error.detail))]
        yield Chunk(number, tuple(sources), path)


def _parts_of_studies(paths: Sequence[str], done: Container[bytes]) -> Iterator[list[Chunk]]:
    """Yield the studies that are not done, some for each part."""
    remaining = (study for study in _studies(paths) if bytes.fromhex(study.key) not in done)
    while part := list(islice(remaining, PART_STUDIES)):
        yield part


def _parts_of_files(paths: Sequence[str], done: Container[bytes]) -> Iterator[list[Chunk]]:
    """Yield the files that are not done, some for each part, which ends with a folder or zip, and so with a series."""
    numbers, part = count(), list[Source]()
    for source in list_sources(paths):
        if bytes.fromhex(source.key) in done:
            continue
        is_full = len(part) >= PART_FILES and (_folder(source) != _folder(part[-1]) or len(part) >= _LARGEST_PART)
        if is_full:
            yield _chunks(part, numbers)
            part = []
        part.append(source)
    if part:
        yield _chunks(part, numbers)


def _folder(source: Source) -> str:
    return source.path if source.member is not None else source.path.rpartition("/")[0]


def _chunks(part: Sequence[Source], numbers: Iterator[int]) -> list[Chunk]:
    starts = range(0, len(part), CHUNK_FILES)
    return [Chunk(next(numbers), tuple(part[start : start + CHUNK_FILES])) for start in starts]


def _collect(
    workers: RayCluster,
    settings: WorkerSettings,
    wave: Sequence[Sequence[Chunk]],
    output: Output,
    progress: Progress,
    show: Callable[[Progress], object],
) -> None:
    """Write each part once it has the rows of all its chunks; at an error, what there is of it."""
    first = output.number_parts(len(wave))
    part_of = {chunk.number: index for index, part in enumerate(wave) for chunk in part}
    waiting: dict[int, list[ChunkRows]] = {}
    try:
        for chunk in workers.rows([chunk for part in wave for chunk in part], settings):
            index = part_of[chunk.number]
            ready = waiting.setdefault(index, [])
            ready.append(chunk)
            progress.add(chunk)
            show(progress)
            if len(ready) == len(wave[index]):
                _write(output, first + index, waiting.pop(index))
    finally:
        for index, ready in sorted(waiting.items()):
            _write(output, first + index, ready)


def _write(output: Output, number: int, chunks: list[ChunkRows]) -> None:
    """Write a part, the slices of each series in anatomical order."""
    chunks.sort(key=lambda chunk: chunk.number)
    models = {chunk.model for chunk in chunks}
    if len(models) > 1:
        raise ClientError(f"the machines of the cluster have different models: {', '.join(sorted(models))}")
    rows = (row for chunk in chunks for row in chunk.rows)
    files = [(file, list(islice(rows, file.rows))) for chunk in chunks for file in chunk.files]
    ordered = in_anatomical_order(files, lambda file: next(iter(file[1]), None))
    in_order = list(chain.from_iterable(file_rows for _, file_rows in ordered))
    output.write(number, models.pop(), in_order, [file for file, _ in ordered])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
