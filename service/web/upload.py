"""Files of a multipart form (RFC 7578), kept in memory, one at a time as they arrive."""

import io
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import (
    DEFAULT_MAX_HEADER_COUNT,
    DEFAULT_MAX_HEADER_SIZE,
    MultipartParser,
    parse_options_header,
)
from starlette.requests import ClientDisconnect

from service.errors import ErrorCode, MalformedRequestError, RequestError
from service.imaging.series.archives import MAX_FILES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD: Final = "image"

_MAX_OTHERS: Final = 16
"""More parts of other names than a valid client sends; each costs time."""

_MAX_CONTENT_TYPE: Final = 1000

_ENCODING_NAME: Final = re.compile(r"[a-z0-9-]{1,20}(, ?[a-z0-9-]{1,20}){0,3}")
"""Encodings that are safe to echo in an error message."""

_FILE_NAME: Final = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)
"""Mark of a file in a Content-Disposition. A name in the encoded form alone (RFC 5987) is not used."""

_FORMATS: Final = "PNG, JPEG, WebP, TIFF, BMP, GIF or DICOM (CT), one frame"


def _form_with(schema: dict[str, object]) -> dict[str, object]:
    """Build the OpenAPI description of a form with the field `image` of a schema."""
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _form_with_files(description: str) -> dict[str, object]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    return _form_with(files | {"description": f"the field repeated{description}"})


OPENAPI_BODY: Final = _form_with({"type": "string", "format": "binary", "description": f"one slice: {_FORMATS}"})

OPENAPI_BODY_OF_MANY: Final = _form_with_files(f", one slice each: {_FORMATS}")

OPENAPI_BODY_OF_STUDY: Final = _form_with_files(
    ": DICOM files, single-frame or enhanced multi-frame; or a NIfTI volume (.nii, .nii.gz); or a zip with any folders "
    "in it"
)


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form, with the name that the client gives it; empty if it gives none in plain form."""

    name: str
    content: io.BytesIO


async def read_upload(request: Request) -> bytes:
    """Read the bytes of the only file of the form.

    Raises:
        RequestError, MalformedRequestError: see `files_of`; also if there are several files.
    """
    async with aclosing(files_of(request, MAX_FILES)) as files:
        only = await anext(files)
        async for _ in files:
            raise MalformedRequestError(
                f"The form has several files {FIELD!r}; send one slice per request, or several to /predict/batch.",
                code=ErrorCode.SEVERAL_IMAGES,
            )
        return only.content.getvalue()


async def files_of(request: Request, max_files: int) -> AsyncGenerator[FormFile]:
    """Yield each file in the field `image`, as soon as it is complete.

    Raises:
        RequestError: the content type is not multipart/form-data, the form has more than `max_files`, or the connection
            closed before the body was complete.
        MalformedRequestError: the form is malformed, or has no file in the field `image`.
    """
    form = _Form(max_files)
    boundary = _boundary_of(request)
    parser = MultipartParser(boundary, form.callbacks)
    try:
        async for chunk in without_preamble(request.stream(), boundary):
            parser.write(chunk)
            while form.files:
                yield form.files.pop(0)
        parser.finalize()
    except FormParserError as error:
        raise _unreadable_form(error) from error
    except ClientDisconnect as error:
        raise incomplete_body() from error
    if not form.is_complete:
        raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
    if not form.count:
        raise _no_file(form.others)


@dataclass(slots=True)
class _Form:
    """A form while it arrives.

    Attributes:
        max_files: maximum number of files in the field `image`.
        files: those that are complete and were not taken yet.
        count: of those that were found.
        others: names of the other parts, which are ignored.
        is_complete: whether the closing boundary was found.
    """

    max_files: int
    files: list[FormFile] = field(default_factory=list)
    count: int = 0
    others: list[str] = field(default_factory=list)
    is_complete: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _file: FormFile | None = None

    @property
    def callbacks(self) -> "MultipartCallbacks":
        """Functions for the parser."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._add_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._disposition, self._file = b"", None

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != FIELD:
            self.others.append(name)
            if len(self.others) > _MAX_OTHERS:
                raise MalformedRequestError(f"The form has more than {_MAX_OTHERS} parts other than files {FIELD!r}.")
            return
        if not _FILE_NAME.search(self._disposition):
            raise MalformedRequestError(
                f"A field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
                code=ErrorCode.MISSING_IMAGE,
            )
        self.count += 1
        if self.count > self.max_files:
            raise too_many_images(self.max_files)
        # names are UTF-8 (RFC 7578, 5.1.2)
        self._file = FormFile(options.get(b"filename", b"").decode("utf-8", "replace"), io.BytesIO())

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.content.write(data[start:end])

    def _end_part(self) -> None:
        if self._file is not None:
            self.files.append(self._file)
            self._file = None

    def _end(self) -> None:
        self.is_complete = True


def _no_file(others: list[str]) -> MalformedRequestError:
    names = ", ".join(sorted({repr(name[:40]) for name in others})) or "none"
    return MalformedRequestError(
        f"The form has no field {FIELD!r}; the fields found: {names}. Send the file as {FIELD!r}.",
        code=ErrorCode.MISSING_IMAGE,
    )


def too_many_images(limit: int) -> RequestError:
    """Build the refusal of a request with more images than the limit."""
    return RequestError(
        ErrorCode.TOO_MANY_IMAGES, f"The limit is {limit} images per request; send them in several requests."
    )


def incomplete_body() -> RequestError:
    """Build the error of a client that left while it sent."""
    return RequestError(ErrorCode.CLIENT_GONE, "The client disconnected before the whole body had arrived.")


def _boundary_of(request: Request) -> bytes:
    """Return the boundary of a multipart form.

    Raises:
        MalformedRequestError: the Content-Type is longer than any valid one, which takes quadratic time to parse, or
            has no boundary.
        RequestError: the body is no such form, or is encoded.
    """
    header = request.headers.get("content-type", "")
    if len(header) > _MAX_CONTENT_TYPE:
        raise MalformedRequestError(f"The Content-Type has more than {_MAX_CONTENT_TYPE} characters.")
    content_type, options = parse_options_header(header)
    if content_type != b"multipart/form-data":
        raise RequestError(
            ErrorCode.UNSUPPORTED_CONTENT_TYPE,
            f"Send the file as {FIELD!r} of a multipart/form-data body: curl -F {FIELD}=@scan.png URL",
        )
    refuse_encoding(request)
    if b"boundary" not in options:
        raise MalformedRequestError("The Content-Type has no boundary.")
    return options[b"boundary"]


def refuse_encoding(request: Request) -> None:
    """Refuse a body with a Content-Encoding, by its name.

    Raises:
        RequestError: there is one.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        name = encoding if _ENCODING_NAME.fullmatch(encoding) else "of an unknown name"
        raise RequestError(
            ErrorCode.UNSUPPORTED_CONTENT_TYPE,
            f"The body has the Content-Encoding {name}, which is not supported; send the body without it. Images are "
            "compressed already.",
        )


def _unreadable_form(error: BaseException) -> MalformedRequestError:
    """Build the refusal of a form that a parser refuses; a limit is named with its number."""
    reason = str(error)
    if "header size" in reason:
        reason = f"a header of a part, such as a long file name, has more than {DEFAULT_MAX_HEADER_SIZE} bytes"
    elif "header count" in reason:
        reason = f"a part has more than {DEFAULT_MAX_HEADER_COUNT} headers"
    return MalformedRequestError(f"The multipart body can't be read: {reason.removesuffix('.')}.")


async def without_preamble(body: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """Drop the text before the first boundary, which has no meaning (RFC 2046, 5.1.1)."""
    opening = b"\n--" + boundary
    held = b"\n"
    async for chunk in body:
        held += chunk
        at = held.find(opening)
        if at >= 0:
            yield held[at + 1 :]
            break
        held = held[-len(opening) :]
    async for chunk in body:
        yield chunk
