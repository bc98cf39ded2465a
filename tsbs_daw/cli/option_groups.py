"""Options that several commands take, written once: in a `grouped` command, a dataclass stands for its fields.

    @grouped
    def command(files: Files, *, treatment: Treatment = Treatment(preset="crate"), as_json: Json = False) -> int:

takes --preset, --model and whatever else a `Treatment` has, in this place of its help. What the instance says is the
default; without one, the fields' own defaults are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command as typer is to see it: with an option for each field of its groups."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups = {one.name: one.annotation for one in parameters if is_dataclass(one.annotation)}
    signature = inspect.Signature([option for one in parameters for option in _options(one)])

    @functools.wraps(command)
    def with_each_option(**given: Any) -> Any:
        bound = signature.bind(**given)
        bound.apply_defaults()
        values = bound.arguments
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    # typer reads both, and resolves names in neither.
    with_each_option.__signature__ = signature
    with_each_option.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return with_each_option


def _options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """A group's fields, or the parameter itself: by keyword, so that they may come in any order."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    if not is_dataclass(parameter.annotation):
        yield parameter.replace(kind=keyword)
        return
    types = get_type_hints(parameter.annotation, include_extras=True)
    for field in fields(parameter.annotation):
        default = field.default if parameter.default is parameter.empty else getattr(parameter.default, field.name)
        default = parameter.empty if default is MISSING else default
        yield inspect.Parameter(field.name, keyword, default=default, annotation=types[field.name])
