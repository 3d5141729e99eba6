"""A multipart form (RFC 7578) while it arrives; its files are kept in memory until they are taken."""

import io
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.multipart import parse_options_header

from service.errors import ErrorCode, MalformedRequestError, too_many_images

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD: Final = "image"

_MAX_OTHERS: Final = 16
"""More parts of other names than a valid client sends; each costs time."""

_FILE_NAME: Final = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)
"""Mark of a file in a Content-Disposition. A name in the encoded form alone (RFC 5987) is not used."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form, with the name that the client gives it; empty if it gives none in plain form."""

    name: str
    content: io.BytesIO


@dataclass(slots=True)
class _Part:
    """A part of a form while it arrives.

    Attributes:
        header, value: name and value of the header that is arriving.
        disposition: the part's Content-Disposition.
        file: None unless the part is a file in the field `image`.
    """

    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    file: FormFile | None = None


@dataclass(slots=True)
class MultipartForm:
    """A form while it arrives, filled by the parser that gets its `callbacks`.

    Attributes:
        max_files: maximum number of files in the field `image`.
        arrived: complete files that were not taken yet.
    """

    max_files: int
    arrived: list[FormFile] = field(default_factory=list)
    _part: _Part = field(default_factory=_Part)
    _files: int = 0
    _names_of_others: list[str] = field(default_factory=list)
    _is_complete: bool = False

    @property
    def callbacks(self) -> "MultipartCallbacks":
        """Functions for the parser."""
        return {
            "on_header_field": lambda data, start, end: self._part.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._part.value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._add_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def check(self) -> None:
        """Check, after the last byte, that the form is complete and had a file.

        Raises:
            MalformedRequestError: it is not, or had none.
        """
        if not self._is_complete:
            raise MalformedRequestError("The form ends before its closing boundary; send the whole body.")
        if not self._files:
            names = ", ".join(sorted({repr(name[:40]) for name in self._names_of_others})) or "none"
            raise MalformedRequestError(
                f"The form has no field {FIELD!r}; the fields found: {names}. Send the file as {FIELD!r}.",
                code=ErrorCode.MISSING_IMAGE,
            )

    def _end_header(self) -> None:
        if self._part.header.lower() == b"content-disposition":
            self._part.disposition = bytes(self._part.value)
        self._part.header.clear()
        self._part.value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        name, file_name = (options.get(key, b"").decode("utf-8", "replace") for key in (b"name", b"filename"))
        if name != FIELD:
            self._names_of_others.append(name)
            if len(self._names_of_others) > _MAX_OTHERS:
                raise MalformedRequestError(f"The form has more than {_MAX_OTHERS} parts other than files {FIELD!r}.")
            return
        if not _FILE_NAME.search(self._part.disposition):
            raise MalformedRequestError(
                f"A field {FIELD!r} is text, not a file; with curl, put an @ before the file's name.",
                code=ErrorCode.MISSING_IMAGE,
            )
        self._files += 1
        if self._files > self.max_files:
            raise too_many_images(self.max_files)
        self._part.file = FormFile(file_name, io.BytesIO())

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._part.file is not None:
            self._part.file.content.write(data[start:end])

    def _end_part(self) -> None:
        if self._part.file is not None:
            self.arrived.append(self._part.file)
        self._part = _Part()

    def _end(self) -> None:
        self._is_complete = True


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
