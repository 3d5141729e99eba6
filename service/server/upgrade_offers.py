"""Offers to upgrade a connection, hidden from the parser of HTTP."""

import re
from collections.abc import Callable
from typing import Final

_NAME: Final = b"upgrade"
_RENAMED: Final = b"x-offer"
_OFFER: Final = re.compile(rb"(?i)\nupgrade:")


class UpgradeOffers:
    """Renames every header Upgrade on its way to the parser, which would drop the body and all that follows.

    An offer may be ignored (RFC 9110, 7.8). The text is renamed in headers only, never in a body.

    Args:
        feed: takes bytes and parses them at once.
        in_head: whether the parser is in the headers of a request or before them.
    """

    def __init__(self, feed: Callable[[bytes], None], in_head: Callable[[], bool]) -> None:
        self._feed = feed
        self._in_head = in_head
        self._before = b"\n"  # the last byte that was parsed, and the beginning of a line that may become the header

    def receive(self, data: bytes) -> None:
        """Give bytes to the parser; the beginning of a line that may become the header waits for more bytes."""
        text = self._before + data
        parsed = 1
        for offer in _OFFER.finditer(text):
            line = offer.start() + 1
            self._feed(text[parsed:line])
            parsed = line
            if self._in_head():
                self._feed(_RENAMED)
                parsed += len(_NAME)
        line = text.rfind(b"\n") + 1
        if line >= parsed and 0 < len(text) - line <= len(_NAME) and _NAME.startswith(text[line:].lower()):
            self._feed(text[parsed:line])
            parsed = line
            if self._in_head():
                self._before = text[line - 1 :]
                return
        self._feed(text[parsed:])
        self._before = text[-1:]
