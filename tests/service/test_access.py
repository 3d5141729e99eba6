import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.access import Keys, KeysError, is_loopback
from service.app import create_app
from service.artifact import MANIFEST_NAME
from service.settings import Settings
from tests.service.client import png, predict, problem, reload, serve

pytestmark = pytest.mark.anyio

USER = "user-key-0123456789"
OTHER = "other-key-0123456789"
BOTH = SecretStr(f"{USER}, {OTHER}")


async def test_without_keys_everybody_may_predict(models: Path) -> None:
    async with serve(models) as client:
        assert (await predict(client, png())).status_code == 200


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


async def test_keys_in_the_file_are_read_again_at_a_reload(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# who may ask\n{USER}\n")
    async with serve(models, api_keys_file=file) as client:
        assert (await predict(client, png(), **{"X-API-Key": USER})).status_code == 200
        file.write_text(f"{OTHER}\n")
        assert (await predict(client, png(), **{"X-API-Key": USER})).status_code == 200
        assert await reload(client)
        problem(await predict(client, png(), **{"X-API-Key": USER}), 401, "unauthorized")
        assert (await predict(client, png(), **{"X-API-Key": OTHER})).status_code == 200


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


async def test_a_reload_whose_model_cannot_be_used_leaves_the_keys_too(models: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "models", tmp_path / "keys"
    shutil.copytree(models, folder)
    file.write_text(f"{USER}\n")
    async with serve(folder, api_keys_file=file) as client:
        manifest = (folder / MANIFEST_NAME).read_bytes()
        file.write_text(f"{OTHER}\n")
        (folder / MANIFEST_NAME).write_bytes(b"{")
        assert not await reload(client)
        assert (await predict(client, png(), **{"X-API-Key": USER})).status_code == 200
        problem(await predict(client, png(), **{"X-API-Key": OTHER}), 401, "unauthorized")
        (folder / MANIFEST_NAME).write_bytes(manifest)
        assert await reload(client)
        assert (await predict(client, png(), **{"X-API-Key": OTHER})).status_code == 200
        problem(await predict(client, png(), **{"X-API-Key": USER}), 401, "unauthorized")


@pytest.mark.parametrize("keys", ["short", f"{USER},short"])
def test_a_key_that_could_be_guessed_is_refused_without_being_told(keys: str) -> None:
    with pytest.raises(KeysError, match="shorter than 16") as error:
        create_app(Settings(api_keys=SecretStr(keys)))
    assert "short," not in str(error.value).replace("shorter", "")
    assert USER not in str(error.value)


def test_keys_are_kept_as_hashes_and_never_shown() -> None:
    settings = Settings(api_keys=BOTH)
    keys = Keys(settings)
    assert USER not in repr(settings)
    assert USER not in str(vars(keys))


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]", "[::1]:8000", "LOCALHOST"])
async def test_on_loopback_its_names_are_answered(models: Path, host: str) -> None:
    async with serve(models) as client:
        assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "evil.example:8000", "[::1].evil"])
async def test_on_loopback_any_other_name_is_refused(models: Path, host: str) -> None:
    """The page of a site whose name was made to resolve to 127.0.0.1."""
    async with serve(models) as client:
        problem(await client.get("/health/live", headers={"Host": host}), 400, "unknown_host")


async def test_hosts_that_are_set_are_answered_and_no_others(models: Path) -> None:
    async with serve(models, allowed_hosts="ct.example, localhost") as client:
        assert (await client.get("/health/live", headers={"Host": "ct.example"})).status_code == 200
        problem(await client.get("/health/live", headers={"Host": "127.0.0.1"}), 400, "unknown_host")
    async with serve(models, host="0.0.0.0") as client:  # noqa: S104 - nothing listens in this test
        assert (await client.get("/health/live", headers={"Host": "anything"})).status_code == 200


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("ct", False)])  # noqa: S104
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_other_origins_are_let_in_only_where_that_is_set(models: Path) -> None:
    ask = {"Origin": "https://ct.example", "Access-Control-Request-Method": "POST"}
    async with serve(models) as client:
        response = await client.get("/health/live", headers=ask)
        assert "access-control-allow-origin" not in response.headers
    async with serve(models, cors_origins="https://ct.example") as client:
        allowed = await client.options("/predict", headers=ask)
        refused = await client.options("/predict", headers={**ask, "Origin": "https://evil.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://ct.example"
    assert "access-control-allow-origin" not in refused.headers


async def test_every_answer_tells_browsers_to_run_frame_and_keep_nothing(models: Path) -> None:
    async with serve(models) as client:
        answers = [await client.get(path) for path in ("/model", "/nowhere", "/metrics")]
        answers.append(await predict(client, b"no image"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_documentation_can_be_turned_off(models: Path) -> None:
    async with serve(models, docs=False) as client:
        for path in ("/docs", "/openapi.json", "/redoc"):
            problem(await client.get(path), 404, "not_found")


async def test_answers_hold_no_path_and_no_version_of_a_library(models: Path) -> None:
    async with serve(models) as client:
        answers = [await client.get(path) for path in ("/model", "/metrics", "/nowhere", "/health/ready")]
    for answer in answers:
        text = answer.text + str(answer.headers)
        assert str(models) not in text
        for name in ("torch=", '"torch"', "uvicorn", "starlette", "python_info"):
            assert name not in text, answer.url
