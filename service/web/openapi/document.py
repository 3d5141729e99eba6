"""The OpenAPI document, with each body described once."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

PREDICTIONS: Final = "Predictions"
OPERATIONS: Final = "Operations"

TAGS: Final[list[dict[str, Any]]] = [
    {"name": PREDICTIONS, "description": "Probabilities and heat maps for slices."},
    {"name": OPERATIONS, "description": "Model card, metrics and probes; they need no API key."},
]
"""For all routes except those of V2."""

_SCHEMAS: Final = "#/components/schemas/"


class DescribedApp(FastAPI):
    """FastAPI with its OpenAPI document corrected.

    Args:
        bodies: models that routes name with `reference_to`, which FastAPI does not find.
        options: of FastAPI.
    """

    def __init__(self, bodies: Sequence[type[BaseModel]], **options: Any) -> None:
        super().__init__(**options, generate_unique_id_function=_function_name)
        self._bodies = bodies

    def openapi(self) -> dict[str, Any]:
        """Build the document, once."""
        if self.openapi_schema is None:
            document = super().openapi()
            _add_schemas(document, self._bodies)
            _remove_validation_errors(document)
        return super().openapi()


def reference_to(body: type[BaseModel]) -> dict[str, str]:
    """Build a reference to the schema of `body`, one of the application's `bodies`."""
    return {"$ref": _SCHEMAS + body.__name__}


def _function_name(route: APIRoute) -> str:
    """Name an operation like its function, a good method name for a generated client."""
    return route.name


def _add_schemas(document: dict[str, Any], bodies: Sequence[type[BaseModel]]) -> None:
    _, described = models_json_schema([(body, "validation") for body in bodies], ref_template=_SCHEMAS + "{model}")
    document["components"]["schemas"] = described["$defs"] | document["components"]["schemas"]


def _remove_validation_errors(document: dict[str, Any]) -> None:
    """Remove FastAPI's 422 for invalid parameters: they are problems with status 400."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
