"""The JSON documents that the program reads and writes, one module each.

This module holds what all of them share: a schema number, no unknown keys, and errors in one sentence.

A parsed document can always be written again without a change: it holds no lone surrogates, no NaN, and no nesting
that is too deep for a JSON writer. So code that holds a document need not expect serialising it to fail.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tsbs_daw.core.errors import JobFormatError, first_problem, printable
from tsbs_daw.core.files import read_small

SCHEMA: Final = 1
MAX_BYTES: Final = 4 << 20  # largest document to read from a folder that others can write to
_MAX_DEPTH: Final = 64

AnyDocument = TypeVar("AnyDocument", bound="Document")


def _to_sentence(text: Any) -> Any:
    return printable(text) if isinstance(text, str) else text


# Text for people; made safe to store and display, whatever it quotes.
Sentence = Annotated[str, BeforeValidator(_to_sentence)]


class Part(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """A whole JSON file, with its schema number."""

    SCHEMAS: ClassVar[tuple[int, ...]] = (SCHEMA,)  # supported versions

    schema_: Literal[1] = Field(SCHEMA, alias="schema")

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2)

    def checked(self: AnyDocument) -> AnyDocument:
        """Return this document, after checking that it survives writing and reading unchanged.

        Raises:
            JobFormatError: It does not, for example because of a file name that is not UTF-8. The message is one
                sentence.
        """
        kind = type(self).__name__.lower()
        try:
            again = type(self).from_json(self.to_json(), f"the {kind}")
        except ValueError as error:  # from the JSON writer
            raise JobFormatError(f"The {kind} cannot be written as JSON ({printable(str(error))[:300]}).") from error
        if again != self:
            raise JobFormatError(f"The {kind} changes when it is written as JSON; use only text and finite numbers.")
        return self

    @classmethod
    def from_json(cls: type[AnyDocument], text: str | bytes, name: Path | str) -> AnyDocument:
        """Parse and validate a document.

        Args:
            text: The JSON.
            name: What messages call this text, usually its file.

        Returns:
            The document.

        Raises:
            JobFormatError: The text is not JSON, has another schema or unknown or invalid keys, or holds something that
                cannot be written again. The message is one sentence.
        """
        what = printable(str(name))
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise JobFormatError(f"{what} is not valid JSON ({printable(str(error))}); write it again.") from error
        if problem := _unstorable(found):
            raise JobFormatError(f"{what}: {problem}; write it again without that.")
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema not in cls.SCHEMAS or isinstance(schema, bool):
            said = repr(schema)[:40] if isinstance(schema, (int, float, str, type(None))) else "of another type"
            known = " and ".join(map(str, cls.SCHEMAS))
            raise JobFormatError(
                f"{what} has schema {printable(said)}, and this version of tsbs-daw understands schema {known}; "
                "update whichever of the two is older."
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise JobFormatError(f"{what}: {printable(first_problem(error).clause)[:600]}.") from error

    @classmethod
    def read(cls: type[AnyDocument], path: Path, limit_bytes: int = MAX_BYTES) -> AnyDocument:
        """Read a document from a folder that others can write to: only a regular file, no link, of limited size.

        Raises:
            FileNotFoundError: The file does not exist.
            NotADirectoryError: A folder on its path is a file.
            JobFormatError: The file cannot be read, or as in `from_json`. The message is one sentence.
        """
        try:
            text = read_small(path, limit_bytes)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            what = printable(str(path))
            raise JobFormatError(f"Cannot read {what} ({error.strerror}); write it again.") from error
        return cls.from_json(text, path)


def _unstorable(found: Any) -> str:
    """Say what in a parsed document cannot be written again; empty if everything can."""
    level: list[tuple[str, Any]] = [("", found)]
    for _ in range(_MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for where, value in level:
            if problem := _unstorable_value(value):
                return f"{printable(where) or 'the document'} {problem}"
            if isinstance(value, dict):
                below += ((f"{where}.{key[:50]}"[-100:].lstrip("."), inside) for key, inside in value.items())
            elif isinstance(value, list):
                below += ((where, inside) for inside in value)
        level = below
        if not level:
            return ""
    return f"{printable(level[0][0])} is nested more than {_MAX_DEPTH} levels deep"


def _unstorable_value(value: Any) -> str:
    texts = value.keys() if isinstance(value, dict) else (value,) if isinstance(value, str) else ()
    if any(not _is_text(text) for text in texts):
        return "holds half a character (a lone surrogate)"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return "is a number too large to store"
    return ""


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False
