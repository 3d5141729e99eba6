import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from training.release.lesion_record import LesionRunRecord
from training.report.run import ReportRunRecord
from training.run.record import Record, write_schema

MODELS = Path(__file__).parents[3] / "models"


def schema_of(kind: type[Record], folder: Path) -> dict[str, Any]:
    write_schema(kind, folder)
    content: dict[str, Any] = json.loads((folder / "metrics.schema.json").read_text())
    return content


@pytest.mark.parametrize("kind", [LesionRunRecord, ReportRunRecord])
def test_every_field_of_metrics_json_is_described(kind: type[Record], tmp_path: Path) -> None:
    schema = schema_of(kind, tmp_path)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert len(schema["$defs"]) > 5
    assert _fields_without_description(schema) == []


def _fields_without_description(schema: dict[str, Any]) -> list[str]:
    records = (schema, *schema["$defs"].values())
    fields = [pair for record in records for pair in record.get("properties", {}).items()]
    assert len(fields) > 50
    return [name for name, field in fields if not field.get("description")]


def test_the_shipped_schema_describes_the_shipped_metrics() -> None:
    shipped = json.loads((MODELS / "metrics.schema.json").read_text())
    jsonschema.validate(json.loads((MODELS / "metrics.json").read_text()), shipped)
    assert _fields_without_description(shipped) == []
