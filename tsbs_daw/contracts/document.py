"""What all JSON documents have in common: a schema number, no unknown keys, and errors in one sentence."""

from __future__ import annotations

import json
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.validation import first_problem

SCHEMA: Final = 1

AnyDocument = TypeVar("AnyDocument", bound="Document")


class Part(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """A whole JSON file, with its schema number."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2)

    @classmethod
    def from_json(cls: type[AnyDocument], text: str | bytes, name: str) -> AnyDocument:
        """Parse and validate.

        Args:   name: what the message calls this text, usually its file
        Raises: JobFormatError: not JSON, another schema, unknown or wrong keys; one sentence
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise JobFormatError(f"{name} is not valid JSON ({error}); write it again.") from error
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise JobFormatError(
                f"{name} has schema {schema!r}, and this version of tsbs-daw understands schema {SCHEMA}; "
                "update whichever of the two is older."
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise JobFormatError(f"{name}: {first_problem(error).clause}.") from error
