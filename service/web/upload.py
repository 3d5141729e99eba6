"""Files of a request with a multipart form, one at a time as they arrive."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

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
from service.web.multipart_form import FIELD, FormFile, MultipartForm, without_preamble

_MAX_CONTENT_TYPE: Final = 1000

_ENCODING_NAME: Final = re.compile(r"[a-z0-9-]{1,20}(, ?[a-z0-9-]{1,20}){0,3}")
"""Encodings that are safe to echo in an error message."""


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
    boundary = _boundary_of(request)
    form = MultipartForm(max_files)
    parser = MultipartParser(boundary, form.callbacks)
    try:
        async for chunk in without_preamble(request.stream(), boundary):
            parser.write(chunk)
            while form.arrived:
                yield form.arrived.pop(0)  # and keep none: a zip is as large as a body
    except FormParserError as error:
        raise _unreadable_form(error) from error
    except ClientDisconnect as error:
        raise incomplete_body() from error
    form.check()


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
