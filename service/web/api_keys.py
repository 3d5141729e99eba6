"""API keys: read from the settings, kept as hashes, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from service.errors import UnauthorizedError
from service.settings import Settings

API_KEY_HEADER: Final = "X-API-Key"

_MIN_KEY_LENGTH: Final = 16
"""Characters; a shorter key could be guessed by trying."""


class KeysError(ValueError):
    """API keys that can't be used; the message is one line with setting or file, and contains no key."""


class ApiKeys:
    """API keys, read once and kept as hashes; a reload makes a new object.

    Args:
        settings: `api_keys` and `api_keys_file`; both are read here.

    Raises:
        KeysError: a key is too short, or the file can't be read or has no key.
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
        """Accept one of the keys; without keys, accept any request.

        Raises:
            UnauthorizedError: the key is missing or unknown.
        """
        if self.required and not _is_among(key, self._digests):
            raise UnauthorizedError(f"Send one of this service's API keys in the header {API_KEY_HEADER}.")


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise KeysError(f"COVIDCT_API_KEYS_FILE={path}: can't be read: {reason}") from error
    keys = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    _check_lengths(keys, f"COVIDCT_API_KEYS_FILE={path}")
    if not any(keys):  # an empty file must not open the service to everybody
        raise KeysError(f"COVIDCT_API_KEYS_FILE={path}: it contains no key")
    return keys


def _check_lengths(keys: Iterable[str], where: str) -> None:
    if any(key and len(key) < _MIN_KEY_LENGTH for key in keys):
        raise KeysError(f"{where}: a key is shorter than {_MIN_KEY_LENGTH} characters")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _is_among(key: str | None, digests: Iterable[bytes]) -> bool:
    """Compare with all digests, in constant time."""
    found = _digest(key or "")
    return any([hmac.compare_digest(found, each) for each in digests])  # noqa: C419 - a generator would stop early
