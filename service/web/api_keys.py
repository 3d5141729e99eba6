"""API keys, read from the settings, stored as hashes, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from service.errors import ErrorCode, RequestError
from service.regular_file import read_regular_file
from service.settings import Settings

API_KEY_HEADER: Final = "X-API-Key"

_MIN_KEY_LENGTH: Final = 16
"""Minimum characters of a key, so that it cannot be guessed."""

_MAX_FILE_BYTES: Final = 1024**2


class KeysError(ValueError):
    """Unusable API keys; the message is one line with setting or file, without a key."""


class ApiKeys:
    """API keys, read once and stored as hashes; a reload makes a new object.

    Args:
        settings: `api_keys` and `api_keys_file`; both are read here.

    Raises:
        KeysError: a key is too short or not ASCII, or the file can't be read or has no key.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [key.strip() for key in settings.api_keys.get_secret_value().split(",")]
        _check(keys, "COVIDCT_API_KEYS")
        if settings.api_keys_file is not None:
            keys += _read(settings.api_keys_file)
        self._digests = [_digest(key) for key in keys if key]

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._digests)

    def admit(self, key: str | None) -> None:
        """Accept one of the keys; without keys, accept any request.

        Raises:
            RequestError: the key is missing or unknown.
        """
        if self.required and not _is_among(key, self._digests):
            raise RequestError(
                ErrorCode.UNAUTHORIZED, f"Send one of this service's API keys in the header {API_KEY_HEADER}."
            )


def _read(path: Path) -> list[str]:
    where = f"COVIDCT_API_KEYS_FILE={path}"
    try:
        lines = read_regular_file(path, _MAX_FILE_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise KeysError(f"{where}: can't be read: {reason}") from error
    keys = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    _check(keys, where)
    if not any(keys):  # an empty file must not open the service to everybody
        raise KeysError(f"{where}: it contains no key")
    return keys


def _check(keys: Iterable[str], where: str) -> None:
    if any(key and len(key) < _MIN_KEY_LENGTH for key in keys):
        raise KeysError(f"{where}: a key is shorter than {_MIN_KEY_LENGTH} characters")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise KeysError(f"{where}: a key has characters other than printable ASCII, which a header can't carry")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _is_among(key: str | None, digests: Iterable[bytes]) -> bool:
    """Compare with all digests, in constant time."""
    digest = _digest(key or "")
    return any([hmac.compare_digest(digest, known) for known in digests])  # noqa: C419 - a generator would stop early
