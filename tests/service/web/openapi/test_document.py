"""The OpenAPI document: names, tags, and bodies that are each described once."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service import DISCLAIMER
from service.settings import Settings
from service.web.app import create_app
from service.web.problems import MEDIA_TYPE

VERSIONED = ("infer", "metadata", "ready", "config", "statistics")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_operations_have_the_names_of_methods(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert sorted(ids) == sorted(
        [
            *("predict", "predict_batch", "predict_study", "explain", "model", "metrics", "live", "ready"),
            *("v2_server_metadata", "v2_server_live", "v2_server_ready", "v2_repository_index", "v2_all_statistics"),
            *(f"v2_{what}_{name}" for what in ("model", "version") for name in VERSIONED),
        ]
    )


def test_every_operation_has_a_described_tag_and_a_summary(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    used = [(operation["tags"], operation["summary"]) for _, operation in operations(document)]
    assert {tag for tags, _ in used for tag in tags} == described
    assert all(len(tags) == 1 and summary for tags, summary in used)
    assert DISCLAIMER in document["info"]["description"]


def test_every_reference_leads_to_a_schema_and_every_schema_is_used(document: dict[str, Any]) -> None:
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert used == document["components"]["schemas"].keys()


def test_every_error_refers_to_the_one_schema_of_its_form(document: dict[str, Any]) -> None:
    count = 0
    for path, operation in operations(document):
        form = ("application/json", "V2Error") if path.startswith("/v2") else (MEDIA_TYPE, "Problem")
        for status, answer in operation["responses"].items():
            if status != "200":
                ((media_type, content),) = answer["content"].items()
                assert (media_type, content["schema"]) == (form[0], {"$ref": f"#/components/schemas/{form[1]}"})
                count += 1
    assert count > 50
    assert '"urn:covidct:problem:damaged_image"' in json.dumps(document["components"]["schemas"]["Problem"])


def test_no_answer_is_described_that_is_never_sent(document: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(document)
    assert "422" not in document["paths"]["/predict/batch"]["post"]["responses"]
    assert "422" in document["paths"]["/predict"]["post"]["responses"]
    assert document["paths"]["/metrics"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}


def test_a_form_has_its_file(document: dict[str, Any]) -> None:
    form = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["format"] == "binary"
    assert form["required"] == ["image"]


def test_both_routes_of_a_model_take_the_same_and_one_takes_a_version(document: dict[str, Any]) -> None:
    for part in ("", "/ready", "/config", "/stats", "/infer"):
        of_model, of_version = (
            next(iter(document["paths"][f"/v2/models/{{name}}{versions}{part}"].values()))
            for versions in ("", "/versions/{version}")
        )
        assert [parameter["name"] for parameter in of_model["parameters"]] == ["name"]
        assert sorted(parameter["name"] for parameter in of_version["parameters"]) == ["name", "version"]
        different = ("operationId", "summary", "parameters")
        assert {key: value for key, value in of_model.items() if key not in different} == {
            key: value for key, value in of_version.items() if key not in different
        }
