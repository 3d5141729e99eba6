"""Slices of a study as frames between a process and its workers."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from service.errors import ServiceError
from service.imaging.cage.failures import crashed
from service.imaging.cage.messages import Head
from service.imaging.decode import DecodeLimits, Slice
from service.imaging.orientation import Turn
from service.imaging.series.files import ReadOptions, StudySlice, study_slices
from service.imaging.series.geometry import SourceFrame
from service.imaging.series.place import Place, Plane
from service.imaging.window import Window


def study_order(name: str, options: ReadOptions) -> Head:
    """Build the order for the slices of a file."""
    return {"kind": "study", "name": name[-1000:], "options": asdict(options)}


def pack_slices(order: Head, data: bytes) -> Iterator[tuple[Head, list[bytes]] | ServiceError]:
    """Yield head and parts of each slice of a file: the network's input and the picture if there are any, the header.

    The header goes with the first slice alone: the frames of a file share it.

    Raises:
        ServiceError: the file has no slice.
    """
    options = dict(order["options"])
    frames = options["frames"]
    parsed = {
        "limits": DecodeLimits(**options["limits"]),
        "window": Window(**options["window"]),
        "frames": None if frames is None else tuple(frames),
    }
    read = ReadOptions(**options | parsed)
    first = int(order["start"])
    for index, slice_ in enumerate(study_slices(data, order["name"], read, first), start=first):
        if isinstance(slice_, ServiceError):
            yield slice_
            continue
        source = slice_.place.source
        header = source.header if source is not None and index == 0 else b""
        parts = [pixels.tobytes() for pixels in (slice_.network_input, slice_.picture) if pixels is not None]
        place = replace(slice_.place, source=source and replace(source, header=b""))
        described = asdict(place)
        if source is not None:
            described["source"]["header"] = ""
        shape = None if slice_.picture is None else slice_.picture.shape[1:]
        head = {
            "place": described,
            "frame": slice_.frame,
            "has_hounsfield": slice_.has_hounsfield,
            "has_input": slice_.network_input is not None,
            "shape": shape,
            "header": len(header),
        }
        yield head, [*parts, header]


def unpack_slice(head: Head, payload: bytes, input_size: int, header: bytes) -> tuple[StudySlice, bytes]:
    """Rebuild a slice, without trusting the worker.

    Args:
        head, payload: as the worker sent them.
        input_size: side of the network's input.
        header: of the file, from an earlier slice.

    Returns:
        The slice, and the header of the file.

    Raises:
        UnusableImageError: head and payload do not match.
    """
    try:
        network_input: Slice | None = None
        picture: Slice | None = None
        area = 0
        if head["has_input"]:
            area = input_size**2
            network_input = np.frombuffer(payload, np.uint8, area).reshape(1, input_size, input_size).copy()
        if head["shape"] is not None:
            height, width = (int(side) for side in head["shape"])
            picture = np.frombuffer(payload, np.uint8, height * width, area).reshape(1, height, width).copy()
            area += height * width
        header = payload[area : area + int(head["header"])] or header
        place = _place(head["place"], header)
        slice_ = StudySlice(place, int(head["frame"]), network_input, picture, bool(head["has_hounsfield"]))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise crashed() from None
    return slice_, header


def _place(fields: dict[str, Any], header: bytes) -> Place:
    plane, source = fields["plane"], fields["source"]
    return Place(
        series=tuple(str(part) for part in fields["series"]),
        rows=int(fields["rows"]),
        columns=int(fields["columns"]),
        order=tuple(part if isinstance(part, str) else float(part) for part in fields["order"]),
        acquisition=None if fields["acquisition"] is None else int(fields["acquisition"]),
        plane=None if plane is None else _plane(plane),
        turn=Turn(**{name: bool(value) for name, value in fields["turn"].items()}),
        source=None
        if source is None
        else SourceFrame(
            str(source["sop_class_uid"]),
            str(source["sop_instance_uid"]),
            None if source["frame"] is None else int(source["frame"]),
            header,
        ),
    )


def _plane(fields: dict[str, Any]) -> Plane:
    (x, y, z), row, column, (between_rows, between_columns) = (
        [float(value) for value in fields[name]]
        for name in ("position", "row_direction", "column_direction", "pixel_spacing")
    )
    return Plane(
        (x, y, z), (row[0], row[1], row[2]), (column[0], column[1], column[2]), (between_rows, between_columns)
    )
