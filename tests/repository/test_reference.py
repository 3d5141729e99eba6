"""docs/reference.md lists every setting, route, error code and metric, and no other."""

import re
from pathlib import Path

import pytest

from service.errors import ErrorCode, ServiceError
from service.metrics import Metrics
from service.settings import Settings
from service.web.app import create_app
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_settings_table_is_complete_and_has_the_defaults() -> None:
    rows = re.findall(r"^\| `COVIDCT_(\w+)` \| `?([^`|]*?)`? \| (.*) \|$", REFERENCE, flags=re.MULTILINE)
    assert rows == [
        (name.upper(), "" if field.default is None else str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"COVIDCT_([A-Z_]+[A-Z])", REFERENCE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_routes_table_is_complete() -> None:
    named = {f"{method.lower()} {path}" for method, path in re.findall(r"`(GET|POST) (/[\w/.{}]*)`", REFERENCE)}
    schema = create_app(Settings()).openapi()
    served = {f"{method} {path}" for path, methods in schema["paths"].items() for method in methods}
    assert served <= named
    assert named <= served | {"get /", "get /docs", "get /openapi.json"}


def section(heading: str) -> str:
    texts: list[str] = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", REFERENCE, flags=re.DOTALL | re.MULTILINE)
    return texts[0]


def test_the_table_of_errors_has_every_code_that_reaches_a_client_and_no_other() -> None:
    rows = re.findall(r"^\| [\d, ]+ \| ([^|]*) \|", section("Errors"), flags=re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`([a-z_]+)`", row)]
    assert sorted(codes) == sorted(set(ErrorCode) - {ErrorCode.CLIENT_GONE})


@pytest.mark.parametrize("problem", PROBLEM_EXAMPLES, ids=lambda problem: str(problem.code))
def test_a_code_stands_in_a_row_of_its_status(problem: ServiceError) -> None:
    (statuses,) = re.findall(rf"^\| ([\d, ]+) \| [^|]*`{problem.code}`", section("Errors"), flags=re.MULTILINE)
    assert str(problem.status) in statuses.split(", ")


def test_the_table_of_metrics_has_every_metric_and_no_other() -> None:
    served = {
        family.name.removeprefix("covidct_") + ("_total" if family.type == "counter" else "")
        for family in Metrics().registry.collect()
        if family.name.startswith("covidct_")
    }
    rows = re.findall(r"^\| (`[^|]*) \|", section("Metrics"), flags=re.MULTILINE)
    assert served == {name for row in rows for name in re.findall(r"`([a-z_]+)[{`]", row)}
