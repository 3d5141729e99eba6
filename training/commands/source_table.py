"""A table of the sources: slices, classes, groups and masks."""

from collections.abc import Iterable, Mapping, Sequence

from training.data.ct_slices import CtSlice

_COLUMNS = ("read for", "source", "slices", "COVID", "NonCOVID", "no label", "groups", "lesion masks", "with lesion",
            "lung masks")  # fmt: skip


def source_table(slices_by_use: Mapping[str, Sequence[CtSlice]]) -> str:
    """Build a table with one row a use and source, such as `--labelled` and `hospital`."""
    rows: list[Sequence[str]] = [_COLUMNS]
    for use, slices in slices_by_use.items():
        for source in dict.fromkeys(slice_.source for slice_ in slices):
            rows.append((use, source, *_counts([slice_ for slice_ in slices if slice_.source == source])))
    return aligned(rows)


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of text in columns: the first two to the left, the others to the right."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _counts(slices: Sequence[CtSlice]) -> tuple[str, ...]:
    labels = [slice_.label for slice_ in slices]
    lesions = [slice_.lesion for slice_ in slices if slice_.lesion is not None]
    counts = (
        len(slices),
        labels.count(1),
        labels.count(0),
        labels.count(None),
        len({slice_.group for slice_ in slices}),
        len(lesions),
        sum(bool(lesion.any()) for lesion in lesions),
        sum(slice_.lung is not None for slice_ in slices),
    )
    return tuple(str(count) for count in counts)
