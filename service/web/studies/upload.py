"""Files of a study in a multipart form (RFC 7578), one at a time as they arrive."""

import io
import math
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser
from starlette.requests import ClientDisconnect

from service.errors import ClientGoneError, ErrorCode, MalformedRequestError, TooManyImagesError, UnsupportedFormError
from service.imaging.series.archives import MAX_FILES
from service.web.upload import (
    FIELD,
    MAX_PARTS,
    content_type_of,
    multipart_form,
    refuse_encoding,
    unreadable_form,
    without_preamble,
)

OPENAPI_BODY_OF_STUDY: Final = multipart_form(
    {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "description": "the field repeated: DICOM files, single-frame or enhanced multi-frame; or a NIfTI volume "
        "(.nii, .nii.gz); or a zip with any folders in it",
    }
)


async def files_of(request: Request) -> AsyncIterator[tuple[str, io.BytesIO]]:
    """Yield name and content of each file in the field `image`, as soon as it is complete.

    Raises:
        UnsupportedFormError: the content type is not multipart/form-data.
        MalformedRequestError: the form is malformed, or has no file in the field `image`.
        TooManyImagesError: more than `MAX_FILES`.
        ClientGoneError: the connection closed before the body was complete.
    """
    form = _Form(request)
    try:
        async for chunk in form.body:
            form.parser.write(chunk)
            while form.files:
                yield form.files.pop(0)
        form.parser.finalize()
    except FormParserError as error:
        raise unreadable_form(error) from error
    except ClientDisconnect as error:
        raise ClientGoneError("The client disconnected before the whole body had arrived.") from error
    finally:
        form.close()
    if not form.is_complete:
        raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
    if not form.count:
        raise MalformedRequestError(
            f"The form has no file in the field {FIELD!r}; with curl: -F {FIELD}=@ct.zip",
            code=ErrorCode.MISSING_IMAGE,
        )


class _Form:
    """The form while it arrives; files stay in memory."""

    def __init__(self, request: Request) -> None:
        content_type, options = content_type_of(request)
        boundary = options.get(b"boundary")
        if content_type != b"multipart/form-data":
            raise UnsupportedFormError(
                f"Send the study as files {FIELD!r} of a multipart/form-data body: curl -F {FIELD}=@ct.zip URL"
            )
        if boundary is None:
            raise MalformedRequestError("The Content-Type has no boundary.")
        refuse_encoding(request)
        self.files: list[tuple[str, io.BytesIO]] = []
        self.count = 0
        self._others = 0
        self.is_complete = False
        self.body = without_preamble(request.stream(), boundary)
        self.parser = FormParser(
            "multipart/form-data",
            on_field=self._on_field,
            on_file=self._on_file,
            on_end=self._on_end,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": math.inf},
        )

    def close(self) -> None:
        """Let go of the last file, which the parser would keep, in a cycle, until the next garbage collection."""
        if self.parser.parser is not None:
            self.parser.parser.callbacks = {}
        del self.parser

    def _on_field(self, field: Field) -> None:
        if field.field_name == FIELD.encode():
            raise MalformedRequestError(
                f"A field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
                code=ErrorCode.MISSING_IMAGE,
            )
        self._count_other()

    def _on_file(self, file: File) -> None:
        if file.field_name != FIELD.encode():
            self._count_other()
            return
        self.count += 1
        if self.count > MAX_FILES:
            raise TooManyImagesError(f"The form has more than {MAX_FILES} files; send one study at a time.")
        assert isinstance(file.file_object, io.BytesIO)  # noqa: S101 - kept in memory
        self.files.append(((file.file_name or b"").decode("utf-8", "replace"), file.file_object))

    def _count_other(self) -> None:
        """Count a part that is ignored: each costs time."""
        self._others += 1
        if self._others > MAX_PARTS:
            raise MalformedRequestError(f"The form has more than {MAX_PARTS} parts other than files {FIELD!r}.")

    def _on_end(self) -> None:
        self.is_complete = True
