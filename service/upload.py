"""The file in a multipart form (RFC 7578), kept in memory."""

import sys
from typing import Final

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import ClientGoneError, MalformedRequestError, UnsupportedFormError

FIELD: Final = "image"

_MAX_PARTS: Final = 16
"""More parts than any honest client sends; each costs memory before the form can be judged."""

OPENAPI_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "one slice: PNG, JPEG, WebP, TIFF, BMP or GIF, one frame",
                        }
                    },
                }
            }
        },
    }
}


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
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise UnsupportedFormError(
            f"Send the image as the file {FIELD!r} of a multipart/form-data body: curl -F {FIELD}=@scan.png URL"
        )
    parser = _InMemoryParser(request.headers, request.stream(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS)
    try:
        form = await parser.parse()
        if not parser.complete:
            raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
        return await _only_file(form).read()
    except MultiPartException as error:
        raise MalformedRequestError(f"The multipart body can't be read: {error.message}") from error
    except ClientDisconnect as error:
        raise ClientGoneError("The client left before the whole body had arrived.") from error
    finally:
        parser.close()


def _only_file(form: FormData) -> UploadFile:
    parts = form.getlist(FIELD)
    if not parts:
        found = ", ".join(sorted({repr(name[:40]) for name in form})) or "none"
        raise MalformedRequestError(
            f"The form has no field {FIELD!r}; the fields found: {found}. Send the file as {FIELD!r}.",
            code="missing_image",
        )
    if len(parts) > 1:
        raise MalformedRequestError(
            f"The form has {len(parts)} fields {FIELD!r}; send one slice a request.", code="several_images"
        )
    (part,) = parts
    if not isinstance(part, UploadFile):
        raise MalformedRequestError(
            f"The field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
            code="missing_image",
        )
    return part
