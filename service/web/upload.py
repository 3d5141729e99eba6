"""The file in a multipart form (RFC 7578), kept in memory."""

import sys
from collections.abc import Callable
from typing import Final

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import ClientGoneError, ErrorCode, MalformedRequestError, TooManyImagesError, UnsupportedFormError

FIELD: Final = "image"

_MAX_PARTS: Final = 16
"""More parts than any honest client sends; each costs memory before the form can be judged."""

_FORMATS: Final = "PNG, JPEG, WebP, TIFF, BMP, GIF or DICOM (CT), one frame"


def _form(schema: dict[str, object]) -> dict[str, object]:
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


OPENAPI_BODY: Final = _form({"type": "string", "format": "binary", "description": f"one slice: {_FORMATS}"})

OPENAPI_BODY_OF_MANY: Final = _form(
    {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "description": f"the field repeated, one slice each: {_FORMATS}",
    }
)


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, without its habit of spooling larger files to a temporary file on the disk."""

    spool_max_size = sys.maxsize
    complete = False

    def on_end(self) -> None:
        """The closing boundary was found."""
        self.complete = True

    def close(self) -> None:
        """Close the files of all parts, those of a part that never ended included."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_upload(request: Request) -> bytes:
    """The bytes of the form's one file.

    Raises:
        UnsupportedFormError: the content type is not multipart/form-data.
        MalformedRequestError: the form can't be read, or does not hold exactly one file in the field `image`.
        ClientGoneError: the connection closed before the body was whole.
    """
    (data,) = await _read(request, _MAX_PARTS, _only_file)
    return data


async def read_uploads(request: Request, most: int) -> list[bytes]:
    """The bytes of the form's files, in their order.

    Args:
        request: with one to `most` files in the field `image`.
        most: how many there may be.

    Raises:
        UnsupportedFormError, MalformedRequestError, ClientGoneError: as `read_upload`.
        TooManyImagesError: more than `most`.
    """

    def files(form: FormData) -> list[UploadFile]:
        found = _files(form)
        if len(found) > most:
            raise too_many_images(len(found), most)
        return found

    try:
        return await _read(request, most + _MAX_PARTS, files)
    except MalformedRequestError as error:
        if "Too many files" not in error.detail:
            raise
        raise TooManyImagesError(f"The limit is {most} images a request; send them in several requests.") from error


def too_many_images(found: int, most: int) -> TooManyImagesError:
    """The refusal of a request with more than `most` images."""
    return TooManyImagesError(
        f"The request has {found} images, and the limit is {most}; send them in several requests."
    )


async def _read(request: Request, max_files: int, choose: Callable[[FormData], list[UploadFile]]) -> list[bytes]:
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise UnsupportedFormError(
            f"Send the image as the file {FIELD!r} of a multipart/form-data body: curl -F {FIELD}=@scan.png URL"
        )
    parser = _InMemoryParser(request.headers, request.stream(), max_files=max_files, max_fields=_MAX_PARTS)
    try:
        form = await parser.parse()
        if not parser.complete:
            raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
        return [await file.read() for file in choose(form)]
    except MultiPartException as error:
        raise MalformedRequestError(f"The multipart body can't be read: {error.message}") from error
    except ClientDisconnect as error:
        raise ClientGoneError("The client left before the whole body had arrived.") from error
    finally:
        parser.close()


def _only_file(form: FormData) -> list[UploadFile]:
    files = _files(form)
    if len(files) > 1:
        raise MalformedRequestError(
            f"The form has {len(files)} fields {FIELD!r}; send one slice a request, or several to /predict/batch.",
            code=ErrorCode.SEVERAL_IMAGES,
        )
    return files


def _files(form: FormData) -> list[UploadFile]:
    parts = form.getlist(FIELD)
    if not parts:
        found = ", ".join(sorted({repr(name[:40]) for name in form})) or "none"
        raise MalformedRequestError(
            f"The form has no field {FIELD!r}; the fields found: {found}. Send the file as {FIELD!r}.",
            code=ErrorCode.MISSING_IMAGE,
        )
    files = [part for part in parts if isinstance(part, UploadFile)]
    if len(files) < len(parts):
        raise MalformedRequestError(
            f"A field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
            code=ErrorCode.MISSING_IMAGE,
        )
    return files
