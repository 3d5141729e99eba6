"""h11's parser, limited in time and in the requests that it accepts."""

import re
from typing import Final

import h11
from h11 import _readers

MAX_HEAD_BYTES: Final = 64 * 1024
"""For request line and headers together, and for trailers. Browsers and proxies stop at a quarter of it."""

_FEW_CHUNKS: Final = 1000
_MEAN_CHUNK_BYTES: Final = 64
"""Minimum mean size of a chunk from this number of chunks on: parsing takes 8 us per chunk, however small it is."""

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEADER_LINE: Final = re.compile(
    rb"(?P<field_name>" + _TOKEN + rb"):[ \t]*+(?P<field_value>(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?)[ \t]*+"
)
_CHUNK_LINE: Final = re.compile(rb"(?P<chunk_size>[0-9A-Fa-f]{1,20})(?:;[^\r\n]{0,256}+)?[ \t]*+\r\n")


def make_h11_linear() -> None:
    """Replace two patterns of h11 0.16 that take quadratic time: 17 s for 64 KiB of blanks in one header.

    They match the same lines without backtracking in runs of blanks, except chunks with long extensions, which are not
    counted elsewhere.
    """
    _readers.header_field_re = _HEADER_LINE
    _readers.chunk_header_re = _CHUNK_LINE


class Parser(h11.Connection):
    """A server's h11 connection that refuses ambiguous requests and bodies in tiny chunks.

    Attributes:
        requests: number of complete request heads.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.requests = 0
        self._chunks = 0
        self._body_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Parse the next event.

        Raises:
            h11.RemoteProtocolError: the client did not send valid HTTP/1.0 or HTTP/1.1.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.requests += 1
            self._chunks = self._body_bytes = 0
            _check(event)
        elif isinstance(event, h11.Data):
            self._count(event)
        return event

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._body_bytes += len(data.data)
        if self._chunks > _FEW_CHUNKS and self._body_bytes < self._chunks * _MEAN_CHUNK_BYTES:
            raise h11.RemoteProtocolError(f"The body's chunks have fewer than {_MEAN_CHUNK_BYTES} bytes on average")


def _check(request: h11.Request) -> None:
    if request.http_version not in {b"1.0", b"1.1"}:
        raise h11.RemoteProtocolError("Unknown HTTP version")
    names = {name for name, _ in request.headers}
    if names >= {b"content-length", b"transfer-encoding"}:  # a proxy may have read the other one (RFC 9112, 6.1)
        raise h11.RemoteProtocolError("Both Content-Length and Transfer-Encoding")
