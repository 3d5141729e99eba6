import pytest

from service.settings import is_loopback

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("ct", False)])  # noqa: S104
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
