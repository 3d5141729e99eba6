"""The answers of an archive: files to chunks, chunks to a cluster, answers to parts in the order of the files."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from covid_ct.archive.items import Item, list_items
from covid_ct.archive.parts import Output, PartFormat
from covid_ct.archive.workers import Chunk, ChunkAnswer, Cluster, WorkerSettings, ray_cluster
from covid_ct.errors import ClientError
from covid_ct.predict import window_mark
from service.imaging.window import LUNG, Window

CHUNK_FILES: Final = 8
"""Files that one worker answers at a time: about a second of a CPU."""

PART_CHUNKS: Final = 128
"""Chunks of a part; an interrupted run loses at most the chunks that are being answered."""

_WAVE_PARTS: Final = 16
"""Fewest parts whose files are listed and given to the cluster at once; each wave starts the workers anew."""

_PARTS_A_WORKER: Final = 4


@dataclass(slots=True)
class Summary:
    """Counts of one run over an archive.

    Attributes:
        answered, failed: slices of this run.
        kept: rows of previous runs.
        skipped: files in folders and zips that are not images.
        files, total: files that are done, and all files.
    """

    answered: int = 0
    failed: int = 0
    kept: int = 0
    skipped: int = 0
    files: int = 0
    total: int = 0
    _started: float | None = None
    _before: tuple[int, int] = (0, 0)

    def count(self, each: ChunkAnswer) -> None:
        """Add the answer of a chunk; the clock starts with the first one, once the workers run."""
        failed = sum(file.failed for file in each.files)
        self.answered += len(each.rows) - failed
        self.failed += failed
        self.skipped += each.skipped
        self.files += len(each.files)
        if self._started is None:
            self._started, self._before = time.monotonic(), (self.answered + self.failed, self.files)

    def rates(self) -> tuple[float, float] | None:
        """Slices and files a second since the first chunk; None before the second one."""
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        slices, files = self.answered + self.failed - self._before[0], self.files - self._before[1]
        return (slices / seconds, files / seconds) if files and seconds else None

    @property
    def found(self) -> int:
        """Number of slices, with those of previous runs."""
        return self.answered + self.failed + self.kept

    def line(self) -> str:
        """Return progress as one line: slices, their rate, and the remaining time by the number of files."""
        parts = f"{self.answered + self.failed} slices, {self.files} of {self.total} files"
        if (rates := self.rates()) is None:
            return parts
        return f"{parts}, {rates[0]:.1f} slices a second, {_duration((self.total - self.files) / rates[1])} left"

    def summary(self) -> str:
        """Return the result as one line."""
        parts = [f"{self.answered} answered", f"{self.failed} failed"]
        parts += [f"{self.kept} in the output already"] if self.kept else []
        parts += [f"{self.skipped} other files passed over"] if self.skipped else []
        if (rates := self.rates()) is not None:
            parts.append(f"{rates[0]:.1f} slices a second")
        return ", ".join(parts)


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
    show: Callable[[Summary], object] = lambda _: None,
) -> Summary:
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
    summary = Summary(kept=folder.kept)
    for item in list_items(paths):
        summary.total += 1
        summary.files += bytes.fromhex(item.key) in folder.done
    if summary.files == summary.total:
        return summary
    with cluster(address) as workers:
        settings = WorkerSettings(models.absolute(), device, window, operating_point)
        most = max(_WAVE_PARTS, _PARTS_A_WORKER * workers.size) * PART_CHUNKS
        remaining = (item for item in list_items(paths) if bytes.fromhex(item.key) not in folder.done)
        chunks = _chunks(remaining)
        while wave := list(islice(chunks, most)):
            _collect(workers.answers(wave, settings), wave, folder, summary, show)
    return summary


def _chunks(items: Iterator[Item]) -> Iterator[Chunk]:
    number = 0
    while own := tuple(islice(items, CHUNK_FILES)):
        yield Chunk(number, own)
        number += 1


def _collect(
    answers: Iterator[ChunkAnswer],
    wave: Sequence[Chunk],
    output: Output,
    summary: Summary,
    show: Callable[[Summary], object],
) -> None:
    """Write each part once its chunks are answered, in the order of the files; at an error, what there is of it."""
    first, start = output.number_parts(-(-len(wave) // PART_CHUNKS)), wave[0].number
    waiting: dict[int, list[ChunkAnswer]] = {}
    try:
        for each in answers:
            part = (each.number - start) // PART_CHUNKS
            own = waiting.setdefault(part, [])
            own.append(each)
            summary.count(each)
            show(summary)
            if len(own) == min(PART_CHUNKS, len(wave) - part * PART_CHUNKS):
                _write(output, first + part, waiting.pop(part))
    finally:
        for part, own in sorted(waiting.items()):
            _write(output, first + part, own)


def _write(output: Output, number: int, answers: list[ChunkAnswer]) -> None:
    answers.sort(key=lambda each: each.number)
    models = {each.model for each in answers}
    if len(models) > 1:
        raise ClientError(f"the machines of the cluster have different models: {', '.join(sorted(models))}")
    rows = [row for each in answers for row in each.rows]
    output.write(number, models.pop(), rows, [file for each in answers for file in each.files])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
