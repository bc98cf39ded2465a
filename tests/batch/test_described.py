"""docs/catalogue.md tells every field of the catalogue, so that programs can rely on it."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from tsbs_daw.batch.catalogue import COLUMNS
from tsbs_daw.contracts.catalogue import FILE_FIELDS, Catalogue
from tsbs_daw.contracts.manifest import AudioFile

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"


def fields_of(model: type[BaseModel]) -> set[str]:
    """Its fields' names in JSON, and those of all models in it."""
    if model is AudioFile:
        return set(FILE_FIELDS)
    found = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        inside = [field.annotation]
        while inside:
            kind = inside.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= fields_of(kind)
            inside += typing.get_args(kind)
    return found


@pytest.mark.parametrize("name", sorted({*COLUMNS, *fields_of(Catalogue)}))
def test_every_field_is_told(name: str):
    assert re.search(rf"`{name}`", PAGE.read_text(encoding="utf-8")), f"docs/catalogue.md does not tell {name}"


def test_columns_stand_in_the_order_that_is_told():
    table = PAGE.read_text(encoding="utf-8").split("## catalogue.csv")[1].split("## catalogue.json")[0]
    told = [
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split(" | ")[0])
    ]
    assert told == list(COLUMNS)
