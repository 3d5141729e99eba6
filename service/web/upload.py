"""Files of a multipart form (RFC 7578), kept in memory."""

import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from python_multipart.multipart import DEFAULT_MAX_HEADER_COUNT, DEFAULT_MAX_HEADER_SIZE, parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import ClientGoneError, ErrorCode, MalformedRequestError, TooManyImagesError, UnsupportedFormError

FIELD: Final = "image"

MAX_PARTS: Final = 16
"""More parts than a valid client sends; each costs memory before the form can be checked."""

_MAX_CONTENT_TYPE: Final = 1000

_ENCODING_NAME: Final = re.compile(r"[a-z0-9-]{1,20}(, ?[a-z0-9-]{1,20}){0,3}")
"""Encodings that are safe to echo in an error message."""

_FORMATS: Final = "PNG, JPEG, WebP, TIFF, BMP, GIF or DICOM (CT), one frame"


def multipart_form(schema: dict[str, object]) -> dict[str, object]:
    """Build the OpenAPI description of a form with the field `image` of a schema."""
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


OPENAPI_BODY: Final = multipart_form({"type": "string", "format": "binary", "description": f"one slice: {_FORMATS}"})

OPENAPI_BODY_OF_MANY: Final = multipart_form(
    {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "description": f"the field repeated, one slice each: {_FORMATS}",
    }
)


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of a form, with the name that the client gives it; None if it gives none in plain form."""

    name: str | None
    data: bytes


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, but larger files are not written to a temporary file on the disk."""

    spool_max_size = sys.maxsize
    complete = False

    def on_part_begin(self) -> None:
        """Read names as UTF-8 (RFC 7578, 5.1.2): a client's `charset` may fail, or give text that JSON can't hold."""
        self._charset = "utf-8"
        super().on_part_begin()

    def on_headers_finished(self) -> None:
        """Treat a part that has only an encoded file name (RFC 5987) as a file; the name is not used."""
        disposition = self._current_part.content_disposition
        if disposition is not None and b"filename=" not in disposition:
            self._current_part.content_disposition = re.sub(rb"(?i)\bfilename\*\s*=[^;]*", b'filename=""', disposition)
        super().on_headers_finished()

    def on_end(self) -> None:
        """Note that the closing boundary was found."""
        self.complete = True

    def close(self) -> None:
        """Close the files of all parts, including incomplete ones."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_upload(request: Request) -> bytes:
    """Read the bytes of the only file of the form.

    Raises:
        UnsupportedFormError: the content type is not multipart/form-data.
        MalformedRequestError: the form is malformed, or does not have exactly one file in the field `image`.
        ClientGoneError: the connection closed before the body was complete.
    """
    (file,) = await _read(request, MAX_PARTS, _only_file)
    return file.data


async def read_uploads(request: Request, max_images: int) -> list[NamedFile]:
    """Read all files of the form, in order.

    Args:
        request: with one to `max_images` files in the field `image`.
        max_images: maximum number of files.

    Raises:
        UnsupportedFormError, MalformedRequestError, ClientGoneError: see `read_upload`.
        TooManyImagesError: more than `max_images`.
    """

    def files(form: FormData) -> list[UploadFile]:
        uploads = _files(form)
        if len(uploads) > max_images:
            raise too_many_images(len(uploads), max_images)
        return uploads

    try:
        return await _read(request, max_images + MAX_PARTS, files)
    except MalformedRequestError as error:
        if "Too many files" not in error.detail:
            raise
        raise TooManyImagesError(
            f"The limit is {max_images} images per request; send them in several requests."
        ) from error


def too_many_images(count: int, max_images: int) -> TooManyImagesError:
    """Build the refusal of a request with more than `max_images` images."""
    return TooManyImagesError(
        f"The request has {count} images, and the limit is {max_images}; send them in several requests."
    )


def content_type_of(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    """Parse the Content-Type and its options, if it is not longer than any valid one: that takes quadratic time.

    Raises:
        MalformedRequestError: it is longer.
    """
    header = request.headers.get("content-type", "")
    if len(header) > _MAX_CONTENT_TYPE:
        raise MalformedRequestError(f"The Content-Type has more than {_MAX_CONTENT_TYPE} characters.")
    return parse_options_header(header)


def refuse_encoding(request: Request) -> None:
    """Refuse a body with a Content-Encoding, by its name.

    Raises:
        UnsupportedFormError: there is one.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        name = encoding if _ENCODING_NAME.fullmatch(encoding) else "of an unknown name"
        raise UnsupportedFormError(
            f"The body has the Content-Encoding {name}, which is not supported; send the body without it. Images are "
            "compressed already."
        )


def unreadable_form(error: BaseException) -> MalformedRequestError:
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


async def _read(request: Request, max_files: int, choose: Callable[[FormData], list[UploadFile]]) -> list[NamedFile]:
    content_type, options = content_type_of(request)
    if content_type != b"multipart/form-data":
        raise UnsupportedFormError(
            f"Send the image as the file {FIELD!r} of a multipart/form-data body: curl -F {FIELD}=@scan.png URL"
        )
    refuse_encoding(request)
    boundary = options.get(b"boundary")
    body = request.stream() if boundary is None else without_preamble(request.stream(), boundary)
    parser = _InMemoryParser(request.headers, body, max_files=max_files, max_fields=MAX_PARTS)
    try:
        form = await parser.parse()
        if not parser.complete:
            raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
        return [NamedFile(file.filename or None, await file.read()) for file in choose(form)]
    except MultiPartException as error:
        raise unreadable_form(error.__cause__ or error) from error
    except ClientDisconnect as error:
        raise ClientGoneError("The client disconnected before the whole body had arrived.") from error
    finally:
        parser.close()


def _only_file(form: FormData) -> list[UploadFile]:
    files = _files(form)
    if len(files) > 1:
        raise MalformedRequestError(
            f"The form has {len(files)} fields {FIELD!r}; send one slice per request, or several to /predict/batch.",
            code=ErrorCode.SEVERAL_IMAGES,
        )
    return files


def _files(form: FormData) -> list[UploadFile]:
    parts = form.getlist(FIELD)
    if not parts:
        names = ", ".join(sorted({repr(name[:40]) for name in form})) or "none"
        raise MalformedRequestError(
            f"The form has no field {FIELD!r}; the fields found: {names}. Send the file as {FIELD!r}.",
            code=ErrorCode.MISSING_IMAGE,
        )
    files = [part for part in parts if isinstance(part, UploadFile)]
    if len(files) < len(parts):
        raise MalformedRequestError(
            f"A field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
            code=ErrorCode.MISSING_IMAGE,
        )
    return files
