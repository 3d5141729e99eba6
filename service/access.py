"""Who may ask what: API keys, the names this service answers to, and what browsers may do with its answers."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UnauthorizedError, UnknownHostError
from service.settings import Settings

API_KEY_HEADER: Final = "X-API-Key"

_MIN_KEY_LENGTH: Final = 16
"""Characters; a shorter key could be guessed by asking."""

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: "
    "https://fastapi.tiangolo.com; style-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
    "frame-ancestors 'none'"
)
"""What FastAPI's Swagger UI loads; it is the one page with anything from outside, and COVIDCT_DOCS=false ends it."""


class KeysError(ValueError):
    """The keys can't be used; the message is one line that names the setting or the file, and holds no key."""


class Keys:
    """API keys, read once and kept as hashes; a reload makes a new object.

    Args:
        settings: `api_keys` and `api_keys_file`; both are read here.

    Raises:
        KeysError: a key is too short or the file can't be read.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [key.strip() for key in settings.api_keys.get_secret_value().split(",")]
        _check_lengths(keys, "COVIDCT_API_KEYS")
        if settings.api_keys_file is not None:
            keys += _read(settings.api_keys_file)
        self._digests = [_digest(key) for key in keys if key]

    @property
    def required(self) -> bool:
        """Whether requests need a key at all."""
        return bool(self._digests)

    def admit(self, key: str | None) -> None:
        """Let a request pass that brings one of the keys, and any if there are none.

        Raises:
            UnauthorizedError: no key, or none of those known.
        """
        if self.required and not _is_among(key, self._digests):
            raise UnauthorizedError(f"Send one of this service's API keys in the header {API_KEY_HEADER}.")


_header = APIKeyHeader(name=API_KEY_HEADER, auto_error=False, description="if this service was given keys")
_bearer = HTTPBearer(auto_error=False, description="the same key, as a bearer token")


async def _key_of(
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    return header or (bearer.credentials if bearer else None)


async def require_key(request: Request, key: Annotated[str | None, Depends(_key_of)]) -> None:
    """A route's dependency: a known key, where there are keys."""
    request.app.state.api_keys.admit(key)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class HostCheck:
    """ASGI middleware: answers requests for known names alone.

    A page of another site whose name is made to resolve to this address (DNS rebinding) would otherwise be let in by
    the browser as if it were ours.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        names = split(settings.allowed_hosts) or (_LOOPBACK_NAMES if is_loopback(settings.host) else ())
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and self._names:
            name = Headers(scope=scope).get("host", "")
            if _without_port(name).lower() not in self._names:
                raise UnknownHostError(
                    "This service does not answer to the name in the Host header; its operator can allow it with "
                    "COVIDCT_ALLOWED_HOSTS."
                )
        await self._app(scope, receive, send)


class BrowserHeaders:
    """ASGI middleware: headers that keep browsers from sniffing, framing, caching or running anything in an answer."""

    def __init__(self, app: ASGIApp, docs_paths: Iterable[str]) -> None:
        self._app = app
        self._docs_paths = frozenset(docs_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def adding_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"] in self._docs_paths:
                    headers["Content-Security-Policy"] = _DOCS_POLICY
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding_send)


def split(setting: str) -> tuple[str, ...]:
    """The parts of a setting that lists things between commas."""
    return tuple(part for part in (piece.strip() for piece in setting.split(",")) if part)


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise KeysError(f"COVIDCT_API_KEYS_FILE={path}: can't be read: {reason}") from error
    keys = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    _check_lengths(keys, f"COVIDCT_API_KEYS_FILE={path}")
    if not any(keys):  # an emptied file must not open the service
        raise KeysError(f"COVIDCT_API_KEYS_FILE={path}: there is no key in it")
    return keys


def _check_lengths(keys: Iterable[str], where: str) -> None:
    if any(key and len(key) < _MIN_KEY_LENGTH for key in keys):
        raise KeysError(f"{where}: a key is shorter than {_MIN_KEY_LENGTH} characters")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _is_among(key: str | None, digests: Iterable[bytes]) -> bool:
    """In constant time: all are compared, whether one has fitted or not."""
    found = _digest(key or "")
    return any([hmac.compare_digest(found, each) for each in digests])  # noqa: C419 - a generator would stop early


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host)
