"""Base class of everything that is written as JSON, and the JSON Schema of a record."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from training.run.atomic_write import write_text

SCHEMA_NAME: Final = "metrics.schema.json"

_FIELDS: Final = {
    "accuracy": "share of slices with the right label",
    "accuracy_change": "accuracy less that of the unaltered slices",
    "architecture": "of the network",
    "auc": "area under the ROC curve, COVID positive",
    "auc_change": "AUC less that of the unaltered slices",
    "bytes": "size of the file",
    "confusion_matrix": "numbers of slices at the threshold",
    "count": "number of slices, or of patients in scores by patient",
    "epoch": "0 is the network before fine-tuning",
    "false_negatives": "COVID slices that are called NonCOVID",
    "false_positive_rate": "1 - specificity at each threshold",
    "false_positives": "NonCOVID slices that are called COVID",
    "figures": "scores by name, each with its interval",
    "header_rule": "a rule that reads only the file format",
    "high": "upper bound of the 95 % interval",
    "low": "lower bound of the 95 % interval",
    "mean_lesion_probability": "mean probability of a lesion",
    "mean_probability": "mean probability of COVID",
    "model": "name, version and origin of the model",
    "name": "of the model, or of the file",
    "negatives": "number of NonCOVID slices",
    "offset": "added to the log odds",
    "peak_memory_bytes": "largest resident memory of the last process",
    "positive_label": "class of the returned probability",
    "positives": "number of COVID slices, or patients",
    "precision": "number format of the file",
    "rates": "sensitivity and specificity at that threshold",
    "reasons": "share by check",
    "refused": "share that any check refuses",
    "roc": "points of the ROC curve",
    "rule": "how the values were chosen",
    "schema_version": "of this file",
    "seconds": "wall time of training and validation",
    "sensitivity": "share of COVID slices that are called COVID",
    "sha256": "hash, hexadecimal",
    "slope": "multiplies the log odds",
    "specificity": "share of NonCOVID slices that are called NonCOVID",
    "threshold": "at or above it a slice is called COVID",
    "train_accuracy": "share of training slices with the right label",
    "train_loss": "cross-entropy in nats, mean over training slices",
    "true_negatives": "NonCOVID slices that are called NonCOVID",
    "true_positive_rate": "sensitivity at each threshold",
    "true_positives": "COVID slices that are called COVID",
    "val_accuracy": "share of validation slices with the right label",
    "val_auc": "AUC on validation",
    "val_loss": "cross-entropy in nats, mean over validation slices",
    "value": "the figure itself",
    "variants": "scores on the altered test split, by alteration",
    "version": "of the model",
    "weights": "source of the pretrained weights",
}
"""Descriptions of fields that mean the same in every record."""


class Record(BaseModel):
    """Base of all records: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each field in the JSON Schema as the docstring of its class does."""
        schema = handler.resolve_ref_schema(handler(core))
        for kind in reversed(cls.__mro__):
            for name, description in _descriptions(kind).items():
                if name in schema.get("properties", {}):
                    schema["properties"][name].setdefault("description", description)
        return schema

    def write(self, path: Path) -> None:
        """Write the record as a JSON file."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def write_schema(kind: type[Record], folder: Path) -> None:
    """Write the JSON Schema of a record into its folder."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **kind.model_json_schema()}
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            if name in _FIELDS:
                field.setdefault("description", _FIELDS[name])
    write_text(folder / SCHEMA_NAME, json.dumps(schema, indent=2) + "\n")


def _descriptions(kind: type) -> dict[str, str]:
    """Read the section Attributes of a record's docstring: text by field."""
    docstring = inspect.cleandoc(kind.__doc__ or "") if issubclass(kind, Record) else ""
    section = docstring.partition("Attributes:\n")[2]
    entries = re.findall(r"^    ([a-z_, ]+): (.+(?:\n        .+)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
