"""Content of the files of a study: held in memory, or in a zip."""

import asyncio
import io
from dataclasses import dataclass
from typing import Final, Protocol

from service.errors import ServiceError
from service.imaging.series.archives import Archive

START_BYTES: Final = 32 * 1024
"""Start of a file that usually has its whole header; of a thin slice that is not read, no more is needed."""


class Content(Protocol):
    """Content of a file of a study."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    async def read(self) -> bytes:
        """Return the whole file; raises `ServiceError` if it is unreadable."""
        ...

    async def read_start(self) -> bytes:
        """Return the first `START_BYTES`; none if it is unreadable."""
        ...


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file of the form, in memory."""

    file: io.BytesIO

    @property
    def size(self) -> int:
        """See `Content.size`."""
        return self.file.getbuffer().nbytes

    async def read(self) -> bytes:
        """See `Content.read`."""
        return self.file.getvalue()

    async def read_start(self) -> bytes:
        """See `Content.read_start`."""
        return bytes(self.file.getbuffer()[:START_BYTES])


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """A file of a zip that is held."""

    archive: Archive
    number: int

    @property
    def size(self) -> int:
        """See `Content.size`; what the zip announces, which bounds it."""
        return self.archive.size(self.number)

    async def read(self) -> bytes:
        """See `Content.read`."""
        data = await asyncio.to_thread(self.archive.read, self.number)
        if isinstance(data, ServiceError):
            raise data
        return data

    async def read_start(self) -> bytes:
        """See `Content.read_start`."""
        return await asyncio.to_thread(self.archive.read_start, self.number, START_BYTES)
