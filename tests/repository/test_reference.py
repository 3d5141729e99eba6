"""docs/reference.md names every setting, route, problem and metric, and none that does not exist."""

import re
from pathlib import Path

from service.errors import ErrorCode
from service.metrics import Metrics
from service.settings import Settings
from service.web.app import create_app

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_settings_table_is_complete_and_has_the_defaults() -> None:
    rows = re.findall(r"^\| `COVIDCT_(\w+)` \| `?([^`|]*?)`? \| (.*) \|$", REFERENCE, flags=re.MULTILINE)
    assert rows == [
        (name.upper(), "" if field.default is None else str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_that_is_named_anywhere_exists() -> None:
    named = set(re.findall(r"COVIDCT_([A-Z_]+[A-Z])", REFERENCE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_routes_table_is_complete() -> None:
    named = {f"{method.lower()} {path}" for method, path in re.findall(r"`(GET|POST) (/[\w/.{}]*)`", REFERENCE)}
    schema = create_app(Settings()).openapi()
    served = {f"{method} {path}" for path, methods in schema["paths"].items() for method in methods}
    assert served <= named
    assert named <= served | {"get /", "get /docs", "get /openapi.json"}


def test_every_code_that_reaches_a_client_is_in_the_table_of_errors() -> None:
    assert set(ErrorCode) - {ErrorCode.CLIENT_GONE} <= set(re.findall(r"`([a-z_]+)`", REFERENCE))


def test_every_metric_is_in_the_table_of_metrics() -> None:
    served = {
        family.name.removeprefix("covidct_") for family in Metrics().registry.collect() if "covidct_" in family.name
    }
    named = set(re.findall(r"`([a-z_]+?)(?:_total)?(?:{[a-z,_0-9]+})?`", REFERENCE))
    assert len(served) > 5
    assert served <= named
