"""Validation: every value that is refused is told in our own words, wherever it came from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import _pydantic_core

from tsbs_daw.contracts.job import Job
from tsbs_daw.core import errors
from tsbs_daw.core.errors import JobFormatError, first_problem


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    kind: Literal["a", "b"] = "a"
    level: float = Field(0, ge=-40, le=-5, validate_default=False)
    many: int = Field(1, gt=0, lt=9)
    steps: int = Field(4, multiple_of=4)
    name: str = Field("x", min_length=1, max_length=4)
    code: str = Field("a", pattern="^a")
    parts: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    on: bool = True
    at: AwareDatetime | None = None
    place: Path = Path("x")
    more: dict[str, int] = {}


class Outer(BaseModel):
    inner: Inner


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kind": "c"}, "inner.kind must be 'a' or 'b', not 'c'"),
        ({"level": -50}, "inner.level must be at least -40, not -50"),
        ({"level": 3.5}, "inner.level must be at most -5, not 3.5"),
        ({"level": float("nan")}, "inner.level must be a finite number, not nan"),
        ({"level": "loud"}, "inner.level must be a number, not 'loud'"),
        ({"level": []}, "inner.level must be a number"),
        ({"many": 0}, "inner.many must be more than 0, not 0"),
        ({"many": 9}, "inner.many must be less than 9, not 9"),
        ({"many": 1.5}, "inner.many must be a whole number, not 1.5"),
        ({"many": "1_0x"}, "inner.many must be a whole number, not '1_0x'"),
        ({"steps": 6}, "inner.steps must be a multiple of 4, not 6"),
        ({"name": ""}, "inner.name must not be empty, not ''"),
        ({"name": "x" * 99}, "inner.name must have at most 4 characters, not 'xxxx"),
        ({"name": 5}, "inner.name must be text, not 5"),
        ({"code": "b"}, "inner.code must match the pattern ^a, not 'b'"),
        ({"parts": []}, "inner.parts must not be empty"),
        ({"parts": [1, 2, 3]}, "inner.parts must have at most 2 entries"),
        ({"parts": 7}, "inner.parts must be a list, not 7"),
        ({"parts": [1, "x"]}, "inner.parts.1 must be a whole number, not 'x'"),
        ({"on": "maybe"}, "inner.on must be true or false, not 'maybe'"),
        ({"at": "yesterday"}, "inner.at must be a date and time"),
        ({"at": "2026-01-31T12:00:00"}, "inner.at must have a time zone"),
        ({"place": 5}, "inner.place must be a path, not 5"),
        ({"more": 1}, "inner.more must be a mapping of names to values, not 1"),
        ({"mode": 1}, "inner.mode is unknown"),
        (7, "inner must be a mapping of names to values, not 7"),
    ],
)
def test_a_refused_value_is_named_with_what_it_must_be(value: Any, said: str):
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({"inner": value})
    clause = first_problem(refused.value).clause
    assert clause.startswith(said.replace(" empty, not ''", " empty")), clause


def test_a_missing_value_is_named():
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({})
    assert first_problem(refused.value).clause == "inner is missing"


def test_no_kind_of_error_reaches_the_user_in_the_words_of_the_validator():
    for known in _pydantic_core.list_all_errors():
        rule = errors._rule(known["type"], known.get("example_context") or {})
        assert re.match(r"(must|is) ", rule), known["type"]
        assert "Input" not in rule and "valid dictionary" not in rule, known["type"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stretch": 1}, "job.json: stretch is unknown."),
        ({"source": {}}, "job.json: source.path is missing."),
        ({"source": {"path": "/a.wav", "start_samples": -1}}, "source.start_samples must be at least 0, not -1."),
        ({"delivery": {"loudness_lufs": 0}}, "job.json: delivery.loudness_lufs must be at most -5, not 0."),
        ({"delivery": {"names": "{title}"}}, "job.json: delivery.names: the template has no {stem}"),
        ({"delivery": {"format": ["flac"]}}, "job.json: delivery.format must be 'wav32f', 'wav24'"),
        ({"output": "relative"}, "job.json: output: the path 'relative' is not absolute."),
    ],
)
def test_a_job_is_refused_in_our_words(change: dict[str, Any], said: str):
    import json

    document = {"schema": 1, "source": {"path": "/music/a.wav"}, "output": "/music/out"} | change
    with pytest.raises(JobFormatError) as refused:
        Job.from_json(json.dumps(document), "job.json")
    assert said in str(refused.value)
