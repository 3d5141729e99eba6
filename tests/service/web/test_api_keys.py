import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.settings import Settings
from service.web.api_keys import ApiKeys, KeysError
from service.web.app import create_app
from tests.support.processes.client import png, predict, problem, reload, serve

pytestmark = pytest.mark.anyio

USER = "user-key-0123456789"
OTHER = "other-key-0123456789"
BOTH = SecretStr(f"{USER}, {OTHER}")


@pytest.mark.parametrize("headers", [{"X-API-Key": USER}, {"Authorization": f"Bearer {USER}"}, {"X-API-Key": OTHER}])
async def test_a_known_key_may_predict_in_either_header(models: Path, headers: dict[str, str]) -> None:
    async with serve(models, api_keys=BOTH) as client:
        assert (await predict(client, png(), **headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong-key-0123456789"},
        {"X-API-Key": ""},
        {"X-API-Key": USER[:-1]},
        {"Authorization": f"Basic {USER}"},
    ],
)
async def test_any_other_key_is_refused_before_the_body_is_read(models: Path, headers: dict[str, str]) -> None:
    async with serve(models, api_keys=BOTH) as client:
        response = await client.post("/predict", content=b"no form at all", headers=headers)
    problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["connection"] == "close"
    assert USER not in response.text


async def test_health_metrics_and_card_need_no_key(models: Path) -> None:
    async with serve(models, api_keys=BOTH) as client:
        for path in ("/health/live", "/health/ready", "/metrics", "/model"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("content", ["", "# nobody\n", "short\n", None])
async def test_a_key_file_that_cannot_be_used_leaves_the_former_keys(
    models: Path, tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{USER}\n")
    async with serve(models, api_keys_file=file) as client:
        file.write_text(content) if content is not None else file.unlink()
        assert not await reload(client)
        assert (await predict(client, png(), **{"X-API-Key": USER})).status_code == 200
        problem(await predict(client, png()), 401, "unauthorized")
    assert f"COVIDCT_API_KEYS_FILE={file}" in caplog.text


@pytest.mark.parametrize("keys", ["short", f"{USER},short"])
def test_a_key_that_could_be_guessed_is_refused_without_being_told(keys: str) -> None:
    with pytest.raises(KeysError, match="shorter than 16") as error:
        create_app(Settings(api_keys=SecretStr(keys)))
    assert "short," not in str(error.value).replace("shorter", "")
    assert USER not in str(error.value)


def test_keys_are_kept_as_hashes_and_never_shown() -> None:
    settings = Settings(api_keys=BOTH)
    keys = ApiKeys(settings)
    assert USER not in repr(settings)
    assert USER not in str(vars(keys))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s\r\n", b"\xef\xbb\xbf# who may ask\r\n%s\r\n"])
async def test_a_file_with_a_byte_order_mark_has_the_same_keys(models: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content % USER.encode())
    async with serve(models, api_keys_file=file) as client:
        assert (await predict(client, png(), **{"X-API-Key": USER})).status_code == 200
        problem(await predict(client, png(), **{"X-API-Key": "# who may ask-0123456789"}), 401, "unauthorized")


@pytest.mark.parametrize("key", ["schl\u00fcssel-0123456789", "with-a-tab\t0123456789", "nul-\0-0123456789"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_told(tmp_path: Path, key: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{USER}\n{key}\n")
    for settings in (Settings(api_keys_file=file), Settings(api_keys=SecretStr(key))):
        with pytest.raises(KeysError, match="other than printable ASCII") as error:
            ApiKeys(settings)
        assert key not in str(error.value)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(KeysError, match=r"not a regular file|Is a directory"):
            ApiKeys(Settings(api_keys_file=path))
    large = tmp_path / "large"
    large.write_text(f"{USER}\n" * 100_000)
    with pytest.raises(KeysError, match="more than 1048576 bytes"):
        ApiKeys(Settings(api_keys_file=large))
