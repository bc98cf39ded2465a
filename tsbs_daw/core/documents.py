"""Reader of all YAML files that users write: presets, watch folders, training recipes.

A file may come from anyone. Anchors and aliases (a few lines that expand to gigabytes), tags (which create objects),
deep nesting and endless lists are rejected while the file is parsed, at the first occurrence. Every error names file,
line and column, and the closest known name. Scalars stay text until the caller requests a number or a boolean, so that
`no` and `1:30` are never silently converted into something else.

`Document` checks and converts single nodes; `read_model` fills a pydantic model from a whole file.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tsbs_daw.core.errors import DocumentError, PresetError, did_you_mean, first_problem, shown

LARGEST_BYTES = 64 * 1024
DEEPEST = 24
MOST_NODES = 2000

Entries = dict[str, tuple[yaml.ScalarNode, yaml.Node]]

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        noun: Name of the kind in messages, such as "preset".
        error: Exception for mistakes in such a file.
        needs: What an empty file lacks, as the end of a sentence.
    """

    noun: str
    error: type[DocumentError]
    needs: str


PRESET = Kind("preset", PresetError, "it needs at least `outputs:`")


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops at the first node that is not allowed."""

    def __init__(self, text: str, document: Document):
        super().__init__(text)
        self.document, self.depth, self.nodes = document, 0, 0
        self.noun = document.kind.noun
        self.too_deep = f"this is nested more than {DEEPEST} levels deep; simplify the {self.noun}"

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        # The scanner reads ahead of the composer, and its running time grows with the square of the open brackets.
        if self.flow_level >= DEEPEST:
            self._refuse(self.too_deep, self.get_mark())
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.nodes += 1
        self.depth += 1
        if problem := self._problem(event):
            self._refuse(problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, problem: str, mark: yaml.Mark) -> None:
        raise self.document.fail_at(mark, problem)

    def _problem(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            return f"anchors (&) and aliases (*) are not allowed in a {self.noun}; write the value out"
        if getattr(event, "tag", None) is not None:
            return f"tags (!) are not allowed in a {self.noun}; remove this one"
        if self.depth > DEEPEST:
            return self.too_deep
        if self.nodes > MOST_NODES:
            return f"the {self.noun} has more than {MOST_NODES} values; split it into several"
        return ""


class Document:
    """A YAML file as nodes, with methods that check and convert them. Every error names file, line and column."""

    def __init__(self, path: Path, kind: Kind = PRESET):
        self.path, self.kind = path, kind

    def fail(self, node: yaml.Node, message: str) -> DocumentError:
        """Return an error at a node, for the caller to raise."""
        return self.fail_at(node.start_mark, message)

    def fail_at(self, mark: yaml.Mark | None, message: str) -> DocumentError:
        """Return an error at a position, for the caller to raise.

        Args:
            mark: Position in the file; lines and columns in the message count from 1.
            message: Sentence without its full stop, which is added here.
        """
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return self.kind.error(message if message.endswith("?") else f"{message}.", self.path, *place)

    def parse(self, data: bytes) -> yaml.MappingNode:
        """Parse the content of the file and return its outermost node.

        Raises:
            DocumentError: The content is larger than 64 KiB, is not UTF-8 or not YAML, or contains something that is
                not allowed.
        """
        if len(data) > LARGEST_BYTES:
            raise self.kind.error(
                f"the {self.kind.noun} is larger than {LARGEST_BYTES // 1024} KiB; make it shorter.", self.path
            )
        text = self._text(data)
        try:
            root = _compose(_BoundedLoader(text, self))
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error
        if root is None:
            raise self.kind.error(f"the {self.kind.noun} is empty; {self.kind.needs}.", self.path, 1, 1)
        if not isinstance(root, yaml.MappingNode):
            raise self.fail(root, f"a {self.kind.noun} is a mapping of names to values; {self.kind.needs}")
        return root

    def _text(self, data: bytes) -> str:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise self.kind.error(
                f"the {self.kind.noun} is not UTF-8 text; save it as UTF-8.", self.path, line
            ) from error
        if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
            line, start = text.count("\n", 0, bad.start()) + 1, text.rfind("\n", 0, bad.start()) + 1
            raise self.kind.error(
                f"the character U+{ord(bad.group()):04X} is not allowed; remove it.",
                self.path,
                line,
                bad.start() - start + 1,
            )
        return text

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> DocumentError:
        message = " ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces" if "\\t" in message else ""
        return self.fail_at(error.problem_mark or error.context_mark, f"not valid YAML: {message}{hint}")

    def mapping(self, node: yaml.Node, what: str, known: Collection[str] | None = None) -> Entries:
        """Return the entries of a mapping by name.

        Args:
            node: The mapping.
            what: Name of the mapping in messages, such as "an output".
            known: Allowed keys; None for any.

        Raises:
            DocumentError: The node is not a mapping, or a key is repeated, unknown or not a name.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be a mapping of names to values")
        entries: Entries = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(key, f"{what} has a key that is not a name")
            if key.value in entries:
                raise self.fail(key, f"{key.value!r} is given twice in {what}; remove one")
            if known is not None and key.value not in known:
                closest = did_you_mean(key.value, list(known)) or f"; valid keys: {', '.join(known) or 'none'}"
                raise self.fail(key, f"{what} has no {key.value!r}{closest}")
            entries[key.value] = (key, value)
        return entries

    def items(self, node: yaml.Node, what: str, most: int) -> list[yaml.Node]:
        """Return the items of a list of at most `most`; an empty value counts as an empty list."""
        if is_empty(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, f"{what} must be a list: one line with `- ` for each entry")
        if len(node.value) > most:
            raise self.fail(node, f"{what} has {len(node.value)} entries; at most {most} are allowed")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """Return the text of a scalar that is not empty."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, f"{what} must be text")
        if not node.value.strip():
            raise self.fail(node, f"{what} is empty; give it a value (a value with # needs quotes)")
        return str(node.value)

    def number(self, node: yaml.Node, what: str, unit: str = "") -> float:
        """Return a finite decimal number that is written without quotes; `unit` may follow it."""
        text = self.text(node, what)
        if is_quoted(node):
            raise self.fail(node, f"{what} must be a number without quotes")
        if unit and text.endswith(unit):
            text = text[: -len(unit)].rstrip()
        if _NOT_FINITE.fullmatch(text):
            raise self.fail(node, f"{what} must be a finite number, not {text}")
        if not _NUMBER.fullmatch(text):
            raise self.fail(node, f"{what} must be a number, not {text[:40]!r}")
        number = float(text)
        if abs(number) == float("inf"):
            raise self.fail(node, f"{what} must be a finite number, not {text[:40]}")
        return number


def is_quoted(node: yaml.Node) -> bool:
    """Tell whether a scalar is in quotes or in block style."""
    return isinstance(node, yaml.ScalarNode) and node.style is not None


def is_empty(node: yaml.Node) -> bool:
    """Tell whether a value is empty: `key:` with nothing after it, `~` or `null`."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null")


def like_number(text: str) -> bool:
    """Tell whether a text is written as a number, including NaN and infinity."""
    return bool(_NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text))


def _compose(loader: _BoundedLoader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def read_model(path: Path, model: type[AnyModel], kind: Kind) -> AnyModel:
    """Read a whole file into a pydantic model.

    Args:
        path: The file.
        model: Model of its content, made of models, lists and scalars, that forbids unknown keys.
        kind: Kind of file, with its name in messages and its exception.

    Raises:
        DocumentError: The file cannot be read, is not valid or allowed YAML, or has an unknown, missing or invalid
            value; with line and column.
    """
    document = Document(path, kind)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise kind.error(
            f"Cannot read {shown(path)} ({error.strerror}). Check the path and its permissions."
        ) from error
    root = document.parse(data)
    return validate(document, root, model, plain(document, root))


def validate(document: Document, root: yaml.Node, model: type[AnyModel], values: Any) -> AnyModel:
    """Fill a model with plain values.

    Args:
        document: The file, for error messages.
        root: Its outermost node, which gives the position of an invalid value.
        model: The model to fill.
        values: Plain values of `root`; see `plain`.

    Raises:
        DocumentError: A value is invalid; the error is at the position of the first one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = first_problem(error)
        steps, unknown = problem.steps, problem.kind == "unknown"
        node = _node_at(root, steps, want_key=unknown)
        if unknown:
            known = _fields_at(model, steps[:-1])
            closest = did_you_mean(str(steps[-1]), known) or (f"; valid settings: {', '.join(known)}" if known else "")
            raise document.fail(node, f"there is no setting {str(steps[-1])!r} here{closest}") from error
        hint = f"; add `{steps[-1]}:`" if problem.kind == "missing" else ""
        raise document.fail(node, f"{problem.clause}{hint}") from error


def plain(document: Document, node: yaml.Node) -> Any:
    """Convert a node into plain values: strings, numbers, booleans, None, lists and dictionaries.

    Raises:
        DocumentError: A key is repeated or is not a name, or a number is not finite.
    """
    if isinstance(node, yaml.MappingNode):
        return {name: plain(document, value) for name, (_, value) in document.mapping(node, "this mapping").items()}
    if isinstance(node, yaml.SequenceNode):
        return [plain(document, item) for item in node.value]
    kind = "str" if is_quoted(node) else node.tag.rpartition(":")[2]
    if kind == "float" and _NOT_FINITE.fullmatch(node.value):
        raise document.fail(node, f"this must be a finite number, not {node.value}")
    if kind == "float":
        return float(node.value) if _NUMBER.fullmatch(node.value) else node.value
    if kind == "int":
        return int(node.value) if re.fullmatch(r"[-+]?\d+", node.value) else node.value
    if kind == "bool":
        return {"true": True, "false": False}.get(node.value.lower(), node.value)
    return None if kind == "null" else node.value


def _node_at(root: yaml.Node, steps: tuple[Any, ...], *, want_key: bool) -> yaml.Node:
    """Return the node that a path leads to, or the last existing node on that path."""
    node = root
    for number, step in enumerate(steps):
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == step), None)
            if pair is None:
                return node
            last = number == len(steps) - 1
            node = pair[0] if last and want_key else pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            return node
    return node


def _fields_at(model: type[BaseModel], steps: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model at the end of a path."""
    for step in steps:
        if isinstance(step, int) or step not in model.model_fields:  # an entry of a list or of a mapping
            continue
        annotation = model.model_fields[step].annotation
        inner = [annotation, *typing.get_args(annotation)]
        models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
