import pytest

from service.__main__ import _log_too_many_threads, main
from service.settings import Settings, is_loopback

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the logging of this process, whose stream a test closes."""
    monkeypatch.setattr("service.__main__.configure_logging", lambda _: None)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("ct", False)])  # noqa: S104
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PROT": "80", "HOTS": "ct"}, "COVIDCT_HOTS, COVIDCT_PROT: unknown settings"),
        ({"API_KEYS": ""}, "COVIDCT_API_KEYS: the list is empty"),
        ({"API_KEYS": " , "}, "COVIDCT_API_KEYS: the list is empty"),
        ({"API_KEYS": "short"}, "COVIDCT_API_KEYS: a key is shorter than 16 characters"),
        ({"API_KEYS_FILE": "nowhere"}, "COVIDCT_API_KEYS_FILE=nowhere: can't be read"),
        ({"PORT": "seventy"}, "COVIDCT_PORT: Input should be a valid integer"),
        ({"CORS_ORIGINS": "https://a.example, ct.example"}, "COVIDCT_CORS_ORIGINS: 'ct.example' is not an origin"),
        ({"CORS_ORIGINS": "https://ct.example/"}, "without a path"),
        ({"HOST": ""}, "COVIDCT_HOST: the address is empty"),
        ({"HOST": "a..b"}, "COVIDCT_HOST=a..b, COVIDCT_PORT=8000: can't listen there"),
        ({"ALLOWED_HOSTS": "http://ct.example"}, "COVIDCT_ALLOWED_HOSTS: 'http://ct.example' is not a Host name"),
        ({"ALLOWED_HOSTS": "ct example"}, "is not a Host name"),
        ({"ALLOWED_HOSTS": "*.ct.example:80"}, "is not a Host name"),
        ({"MAX_CONNECTIONS": "64"}, "COVIDCT_MAX_CONNECTIONS=64 leaves no place for health and metrics"),
        ({"MAX_BODY_BYTES": "20XB"}, "such as 20MB"),
        ({"LOG_LEVEL": "loud"}, "COVIDCT_LOG_LEVEL"),
        (
            {"RECEIVE_TIMEOUT_SECONDS": "20", "REQUEST_TIMEOUT_SECONDS": "10"},
            "COVIDCT_RECEIVE_TIMEOUT_SECONDS=20 can never apply: COVIDCT_REQUEST_TIMEOUT_SECONDS=10",
        ),
        ({"HEADER_TIMEOUT_SECONDS": "60"}, "COVIDCT_HEADER_TIMEOUT_SECONDS=60 can never apply"),
        (
            {"QUEUE_MAX_LENGTH": "8"},
            "COVIDCT_QUEUE_MAX_LENGTH=8 is less than COVIDCT_MAX_IMAGES_PER_REQUEST=32",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_one_clear_line(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"COVIDCT_{name}", value)
    assert main([]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: ")
    assert said in line


def test_sizes_take_units_and_log_levels_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_BODY_BYTES": "30MB", "LOG_LEVEL": "info", "REQUEST_TIMEOUT_SECONDS": "10"}.items():
        monkeypatch.setenv(f"COVIDCT_{name}", value)
    settings = Settings()
    assert (settings.max_body_bytes, settings.log_level) == (30_000_000, "INFO")
    assert settings.contradictions() == [], "a default that another limit makes ineffective is no contradiction"


def test_more_threads_than_processors_are_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for threads in (None, 1, 4096):
        _log_too_many_threads(threads)
    (warning,) = caplog.messages
    assert warning.startswith("COVIDCT_THREADS=4096 is more than")
