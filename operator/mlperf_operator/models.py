"""What the pydantic models of this project have in common: frozen, and camelCase outside as Kubernetes writes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Strict(BaseModel):
    """Written by people: a field that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Lenient(BaseModel):
    """Written by programs, of another version perhaps: a field that nobody knows is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)
