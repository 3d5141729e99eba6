"""The answers of an archive: files to chunks, chunks to a cluster, answers to parts in the order of the files."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from covid_ct.archive.parts import Output, PartFormat
from covid_ct.archive.workers import AnsweredChunk, Chunk, Cluster, WorkerSettings, ray_cluster
from covid_ct.errors import ClientError
from covid_ct.predict import Counts, window_mark
from covid_ct.sources import Source, list_sources
from service.imaging.window import LUNG, Window

CHUNK_FILES: Final = 8
"""Files that one worker answers at a time: about a second of a CPU."""

PART_CHUNKS: Final = 128
"""Chunks of a part; an interrupted run loses at most the chunks that are being answered."""

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

    def add(self, chunk: AnsweredChunk) -> None:
        """Add the answer of a chunk; the clock starts with the first one, once the workers run."""
        failed = sum(file.failed for file in chunk.files)
        without_lungs = sum(bool(row.error) for row in chunk.rows) - failed
        self.answered += len(chunk.rows) - failed - without_lungs
        self.failed += failed
        self.without_lungs += without_lungs
        self.skipped += chunk.skipped
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
    address: str | None = None,
    cluster: Callable[[str | None], AbstractContextManager[Cluster]] = ray_cluster,
    show: Callable[[Progress], object] = lambda _: None,
) -> Progress:
    """Answer every slice of an archive into a folder of parts; run it again to continue.

    Args:
        paths: files, folders, globs, zips and URIs, reachable from every machine of the cluster.
        output: folder on this machine.
        models: folder with the model, at the same path on every machine.
        form: csv or parquet.
        window: for DICOM and NIfTI.
        device: auto, cpu or cuda.
        operating_point: threshold of the model's card for the label; None: the card's own.
        address: of the Ray cluster; None: RAY_ADDRESS, else this machine.
        cluster: answers the files.
        show: called after each chunk.

    Raises:
        ClientError: no model, no cluster, a URI that can't be listed, or an output of something else.
    """
    paths = list(paths)
    folder = Output.open(output, form, window_mark(window))
    progress = Progress(kept=folder.kept)
    for source in list_sources(paths):
        progress.total += 1
        progress.files += bytes.fromhex(source.key) in folder.done
    if progress.files == progress.total:
        return progress
    with cluster(address) as workers:
        settings = WorkerSettings(models.absolute(), device, window, operating_point)
        most = max(_WAVE_PARTS, _PARTS_A_WORKER * workers.size) * PART_CHUNKS
        remaining = (source for source in list_sources(paths) if bytes.fromhex(source.key) not in folder.done)
        chunks = _chunks(remaining)
        while wave := list(islice(chunks, most)):
            _collect(workers.answers(wave, settings), wave, folder, progress, show)
    return progress


def _chunks(sources: Iterator[Source]) -> Iterator[Chunk]:
    number = 0
    while chunk := tuple(islice(sources, CHUNK_FILES)):
        yield Chunk(number, chunk)
        number += 1


def _collect(
    answers: Iterator[AnsweredChunk],
    wave: Sequence[Chunk],
    output: Output,
    progress: Progress,
    show: Callable[[Progress], object],
) -> None:
    """Write each part once its chunks are answered, in the order of the files; at an error, what there is of it."""
    first, start = output.number_parts(-(-len(wave) // PART_CHUNKS)), wave[0].number
    waiting: dict[int, list[AnsweredChunk]] = {}
    try:
        for chunk in answers:
            part = (chunk.number - start) // PART_CHUNKS
            answered = waiting.setdefault(part, [])
            answered.append(chunk)
            progress.add(chunk)
            show(progress)
            if len(answered) == min(PART_CHUNKS, len(wave) - part * PART_CHUNKS):
                _write(output, first + part, waiting.pop(part))
    finally:
        for part, answered in sorted(waiting.items()):
            _write(output, first + part, answered)


def _write(output: Output, number: int, answers: list[AnsweredChunk]) -> None:
    answers.sort(key=lambda chunk: chunk.number)
    models = {chunk.model for chunk in answers}
    if len(models) > 1:
        raise ClientError(f"the machines of the cluster have different models: {', '.join(sorted(models))}")
    rows = [row for chunk in answers for row in chunk.rows]
    output.write(number, models.pop(), rows, [file for chunk in answers for file in chunk.files])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
