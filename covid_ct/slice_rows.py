"""`covid-ct predict`: one row for each slice; a failed slice does not stop the others."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from covid_ct.counts import Counts
from covid_ct.engines import Engine
from covid_ct.files.slices import SourceSlice, slices_of
from covid_ct.files.sources import SourceFile, list_sources, read_sources
from covid_ct.rows import Row, RowKey, failed_row, printable, window_mark, with_answer
from service.imaging.series.files import COMPANIONS, StudySlice
from service.imaging.window import Window


def slice_rows(
    paths: Sequence[str], engine: Engine, window: Window, counts: Counts, done: Counter[RowKey]
) -> Iterator[Row]:
    """Yield the rows of each slice that is not done; arguments as in `rows_of`."""
    for _, files in read_sources(list_sources(paths)):
        yield from rows_of(files, engine, window, counts, done)


def rows_of(
    files: Iterable[SourceFile], engine: Engine, window: Window, counts: Counts, done: Counter[RowKey]
) -> Iterator[Row]:
    """Yield a row for each slice of some files that is not done, and count; an error of one stops no other.

    Args:
        files: read one at a time.
        engine: predicts.
        window: for Hounsfield units.
        counts: of the run; increased.
        done: keys of the rows that need not be computed again; the new ones are added.
    """
    for file in files:
        base = Row(printable(file.name), file.sha256, engine.model)
        for slice_ in _slices(file, base.path, engine, window):
            row = _placed(replace(base, path=slice_.name, window=window_mark(slice_.window)), slice_.read)
            if row.key in done:
                counts.kept += 1
                continue
            row = _predicted(row, engine, slice_)
            if row.error in COMPANIONS and not file.named:
                counts.skipped += 1
                continue
            if row.is_without_lungs and (not file.named or slice_.name != base.path):
                row = replace(row, detail="The slice shows no lungs.")
                counts.without_lungs += 1
                done[row.key] += 1
            elif row.error:
                counts.failed += 1
            else:
                counts.answered += 1
                done[row.key] += 1
            yield row


def _slices(file: SourceFile, name: str, engine: Engine, window: Window) -> Iterator[SourceSlice]:
    """Yield the slices of a file; if reading fails, the last item is the error."""
    if not isinstance(file.data, bytes):
        yield SourceSlice(name, error=file.data)
        return
    last = name
    try:
        for slice_ in slices_of(file.data, name, engine.decoders, engine.read_options(window), named=file.named):
            last = slice_.name
            yield slice_
    except Exception as error:  # noqa: BLE001 - as in _predicted
        yield SourceSlice(last, error=error)


def _placed(row: Row, read: StudySlice | None) -> Row:
    """Complete a row with the place of a slice."""
    if read is None:
        return row
    place = read.place
    position = None if place.plane is None else round(place.plane.offset, 3)
    if place.source is None:
        return replace(row, position_mm=position)
    study, series = place.series
    return replace(row, study=study, series=series, instance=place.source.sop_instance_uid, position_mm=position)


def _predicted(row: Row, engine: Engine, slice_: SourceSlice) -> Row:
    """Complete a row with the prediction or the error."""
    if slice_.error is not None:
        return failed_row(row, slice_.error)
    try:
        prediction = engine.predict(slice_)
    except Exception as error:  # noqa: BLE001 - a fault of this program in one slice does not end the run
        return failed_row(row, error)
    check = prediction.out_of_distribution
    return replace(
        with_answer(row, prediction),
        lesion_threshold=prediction.lesion_threshold,
        lung_fraction=prediction.lung_fraction,
        ood_score=check.score,
        flagged=check.flagged,
        reason=check.reason or "",
    )
