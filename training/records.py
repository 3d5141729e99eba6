"""What everything that is written to a JSON file is made of."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
