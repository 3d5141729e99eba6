"""Content of the files of a study: held in memory, or in a zip."""

import asyncio
import io
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.errors import ServiceError
from service.imaging.series.archives import Archive

START_BYTES: Final = 32 * 1024
"""Start of a file that usually has its whole header; of a thin slice that is not read, no more is needed."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file of the form, in memory."""

    file: io.BytesIO

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.getbuffer().nbytes

    async def read(self) -> bytes:
        """Return the whole file."""
        return self.file.getvalue()

    async def read_start(self) -> bytes:
        """Return the first `START_BYTES`."""
        return bytes(self.file.getbuffer()[:START_BYTES])


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """A file of a zip that is held."""

    archive: Archive
    number: int

    @property
    def size(self) -> int:
        """Bytes that the zip announces, which bound the file."""
        return self.archive.size(self.number)

    async def read(self) -> bytes:
        """Return the whole file; raises `ServiceError` if it is unreadable."""
        data = await asyncio.to_thread(self.archive.read, self.number)
        if isinstance(data, ServiceError):
            raise data
        return data

    async def read_start(self) -> bytes:
        """Return the first `START_BYTES`; none if they are unreadable."""
        return await asyncio.to_thread(self.archive.read_start, self.number, START_BYTES)


Content: TypeAlias = HeldFile | ZippedFile
"""Content of a file of a study."""
