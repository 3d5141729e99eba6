"""Tensors of the Open Inference Protocol (V2): JSON values, or bytes after the JSON header.

https://github.com/kserve/open-inference-protocol and its extension for binary tensor data.
"""

import base64
import contextlib
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.errors import MalformedRequestError
from service.imaging.decode import DecodeLimits, Slice, check_size
from service.web.v2.schemas import InferRequest, TensorIn, TensorOut

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Number of bytes of JSON in a body, before the bytes of the tensors."""

_MAX_PARTS: Final = 100_000
_MAX_VALUES: Final = 3_000_000
"""Limits of JSON. While it is parsed, 0.3 s for so many values, no other request is answered; a list takes 30 times as
long as a value."""


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, bytes]:
    """Split a body into its JSON header and the bytes after it.

    Raises:
        MalformedRequestError: the header is malformed.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.lstrip("0") or header_length[-1:]
        if not header_length.isdecimal() or len(digits) > 18 or int(digits) > len(body):
            raise MalformedRequestError(f"{HEADER_LENGTH} is not a number of bytes within the body.")
        length = int(digits)
    _check_size(body[:length])
    try:
        return InferRequest.model_validate_json(body[:length]), body[length:]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise MalformedRequestError(f"The inference request can't be read: {where}: {first['msg']}.") from error


def _check_size(header: bytes) -> None:
    """Refuse JSON with too many parts, counted without parsing; base64 has none of these characters."""
    if sum(map(header.count, (b"[", b"{", b":"))) > _MAX_PARTS or header.count(b",") > _MAX_VALUES:
        raise MalformedRequestError(
            f"The JSON has more than {_MAX_PARTS} lists, objects and names, or more than {_MAX_VALUES} values. Send "
            "the values of a tensor as one flat list, or better as binary data."
        )


def only_input(request: InferRequest, binary: bytes) -> tuple[TensorIn, bytes | None]:
    """Return the only tensor of the request, and its bytes if they follow the header.

    Raises:
        MalformedRequestError: there are several, or its bytes are missing.
    """
    if len(request.inputs) > 1:
        raise MalformedRequestError(f"The request has {len(request.inputs)} inputs; send one, 'slice' or 'image'.")
    (tensor,) = request.inputs
    if tensor.parameters.has_shared_memory:
        raise MalformedRequestError(f"Input {tensor.name!r}: shared memory is not supported; send the data.")
    size = tensor.parameters.binary_data_size
    if size is None:
        if tensor.data is None or binary:
            raise MalformedRequestError(f"Input {tensor.name!r}: send either data, or binary_data_size and the bytes.")
        return tensor, None
    if size != len(binary) or tensor.data is not None:
        raise MalformedRequestError(
            f"Input {tensor.name!r}: binary_data_size is {size!r}, and {len(binary)} bytes follow the header."
        )
    return tensor, binary


def slices_of(tensor: TensorIn, binary: bytes | None, limits: DecodeLimits) -> list[Slice]:
    """Read the rows of a UINT8 tensor (N, 1, H, W).

    Args:
        tensor: the input.
        binary: its bytes, row-major, or None if it has JSON values.
        limits: of a slice.

    Raises:
        MalformedRequestError: another datatype, shape or number of values.
        UnusableImageError: the slices are too small or too large.
    """
    _check(tensor, "UINT8")
    count, channels, height, width = tensor.shape if len(tensor.shape) == 4 else (0, 0, 0, 0)
    if channels != 1 or min(count, height, width) < 1:
        raise MalformedRequestError(
            f"Input {tensor.name!r} has the shape {tensor.shape}; send grey slices in their original size, "
            "[N, 1, height, width], or the input 'image' to have files read."
        )
    check_size(width, height, limits)
    flat = np.frombuffer(binary, np.uint8) if binary is not None else _bytes_of_values(tensor)
    needed = count * height * width
    if flat.size != needed:
        raise MalformedRequestError(f"Input {tensor.name!r} has {flat.size} values; its shape needs {needed}.")
    return list(flat.reshape(count, 1, height, width).copy())


def files_of(tensor: TensorIn, binary: bytes | None) -> list[bytes]:
    """Read the elements of a BYTES tensor (N) or (N, 1): image files.

    Raises:
        MalformedRequestError: another datatype, shape or number of elements.
    """
    _check(tensor, "BYTES")
    count = tensor.shape[0]
    if tensor.shape not in ([count], [count, 1]) or count < 1:
        raise MalformedRequestError(f"Input {tensor.name!r} has the shape {tensor.shape}; send [N], one file each.")
    files = (
        _split(binary, tensor.name)
        if binary is not None
        else [_decoded(text, tensor.name, index) for index, text in enumerate(_flat(tensor))]
    )
    if len(files) != count:
        raise MalformedRequestError(f"Input {tensor.name!r} has {len(files)} elements; its shape needs {count}.")
    return files


def output(name: str, values: NDArray[np.float32] | list[str], binary: bool) -> tuple[TensorOut, bytes]:
    """Build an output and, if `binary`, its bytes.

    Args:
        name: of the output.
        values: numbers become FP32, row-major and little-endian; texts become BYTES (N), each after its length.
        binary: whether the values go into bytes instead of the JSON header.
    """
    in_json: list[float] | list[str]
    if isinstance(values, list):
        shape, datatype, in_json = [len(values)], "BYTES", values
        data = b"".join(struct.pack("<I", len(data)) + data for data in (text.encode() for text in values))
    else:
        shape, datatype, in_json = list(values.shape), "FP32", values.ravel().tolist()
        data = values.astype("<f4").tobytes()
    if not binary:
        return TensorOut(name=name, shape=shape, datatype=datatype, data=in_json), b""
    return TensorOut(name=name, shape=shape, datatype=datatype, parameters={"binary_data_size": len(data)}), data


def _check(tensor: TensorIn, datatype: str) -> None:
    if tensor.datatype != datatype:
        raise MalformedRequestError(f"Input {tensor.name!r} has the datatype {tensor.datatype!r}; send {datatype}.")


def _flat(tensor: TensorIn) -> list[Any]:
    """Flatten nested lists in row-major order."""
    values: list[Any] = tensor.data or []
    for _ in tensor.shape[1:]:
        if values and all(isinstance(row, list) for row in values):
            values = [value for row in values for value in row]
    return values


def _bytes_of_values(tensor: TensorIn) -> NDArray[np.uint8]:
    values = _flat(tensor)
    if set(map(type, values)) <= {int}:  # True is no grey value
        with contextlib.suppress(ValueError):
            return np.frombuffer(bytes(values), np.uint8)
    raise MalformedRequestError(f"Input {tensor.name!r}: every value must be a whole number from 0 to 255.")


def _split(data: bytes, name: str) -> list[bytes]:
    """Split into elements; each starts with its length: 4 bytes, little-endian."""
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at) if at + 4 <= len(data) else (len(data),)
        at += 4
        if at + length > len(data):
            raise MalformedRequestError(f"Input {name!r}: element {len(elements)} ends beyond the tensor's bytes.")
        elements.append(data[at : at + length])
        at += length
    return elements


def _decoded(value: object, name: str, index: int) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:  # also for text that is not ASCII
        pass
    raise MalformedRequestError(
        f"Input {name!r}: element {index} of data, counted from 0, is not text in base64. In JSON, each element is a "
        "file in base64; or send binary tensor data."
    )
