"""`covid-ct predict --by-series`: one row for each series; each path, or match of a glob, is a study."""

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from covid_ct.counts import Counts
from covid_ct.engines import Engine, StudyRequest
from covid_ct.errors import ClientError
from covid_ct.files.sources import Source, read_sources, study_sources
from covid_ct.rows import Row, RowKey, SeriesRow, failed_row, printable, window_mark, with_answer
from service.api_study import SeriesAnswer, StudyAnswer
from service.errors import ErrorCode, ServiceError
from service.imaging.window import Window

_NORMAL = (None, "no_lungs", "not_read")
"""Reasons of slices that did not fail."""


def list_studies(paths: Sequence[str]) -> Iterator[str]:
    """Yield each study: a path, or each match of a glob."""
    for path in paths:
        matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207 - as in sources
        yield from matches if matches and not Path(path).exists() else [path]


def series_rows(
    paths: Sequence[str], engine: Engine, window: Window, counts: Counts, done: Counter[RowKey]
) -> Iterator[Row]:
    """Yield the rows of each study that is not done; arguments as in `rows_of`."""
    for path in list_studies(paths):
        try:
            sources = study_sources(path)
        except (ClientError, OSError) as error:
            counts.failed += 1
            yield failed_row(study_row(path, (), engine, window), error)
            continue
        row = study_row(path, sources, engine, window)
        if row.key in done:
            counts.kept += done[row.key]
            continue
        yield from rows_of_study(row, sources, engine, window, counts)


def study_row(path: str, sources: Sequence[Source], engine: Engine, window: Window) -> SeriesRow:
    """Return a row with what all rows of a study have; its files are read for their SHA-256."""
    digest = hashlib.sha256()
    for _, files in read_sources(sources):
        for file in files:
            digest.update(file.sha256.encode())
    return SeriesRow(printable(path), digest.hexdigest() if sources else "", engine.model, window_mark(window))


def rows_of_study(
    row: SeriesRow, sources: Sequence[Source], engine: Engine, window: Window, counts: Counts
) -> Iterator[SeriesRow]:
    """Yield the rows of one study: its series, then the files that failed as one row.

    Args:
        row: from `study_row`.
        sources: files of the study.
        engine, window: as in `Engine.predict_study`.
        counts: of the run; increased.
    """
    try:
        answer = engine.predict_study(StudyRequest(sources, window=window)).answer
    except (ClientError, ServiceError) as error:
        counts.failed += 1
        yield failed_row(row, error)
        return
    counts.skipped += len(answer.skipped)
    for series in answer.series:
        if series.probability is None:
            counts.without_lungs += 1
        else:
            counts.answered += 1
        yield _series_row(row, series)
    failures = list(_failures(answer))
    if failures:
        counts.failed += 1
        code, detail = failures[0]
        yield replace(row, error=code, detail=f"{len(failures)} files or slices failed; the first: {detail}")


def _series_row(row: SeriesRow, series: SeriesAnswer) -> SeriesRow:
    without_lungs = series.probability is None
    return replace(
        with_answer(row, series),
        study=series.study_uid or "",
        series=series.series_uid or "",
        error=ErrorCode.NO_LUNGS if without_lungs else "",
        detail="No slice of the series shows lungs." if without_lungs else "",
        rows=series.rows,
        columns=series.columns,
        spacing_mm=series.spacing_mm,
        slices_read=series.slices_read,
        slices_without_lungs=series.slices_without_lungs,
        slices_not_read=series.slices_not_read,
        slices_failed=series.slices_failed,
        lung_volume_ml=series.lung_volume_ml,
        lesion_volume_ml=series.lesion_volume_ml,
        severity=series.severity or "",
        warnings=" ".join(warning.code for warning in series.warnings),
    )


def _failures(answer: StudyAnswer) -> Iterator[tuple[str, str]]:
    """Yield code and sentence of each file and slice that failed."""
    for other in answer.failed:
        yield other.reason, f"{other.name or f'file {other.file}'}: {other.detail}"
    for series in answer.series:
        for slice_ in series.slices:
            if slice_.reason not in _NORMAL:
                yield str(slice_.reason), f"{slice_.name or f'file {slice_.file}'}: {slice_.reason}"
