"""Read a small YAML document into nodes that know their place, and refuse everything that a preset has no use for.

A preset may come from anyone. Anchors and aliases (a few lines that unfold to gigabytes), tags (which ask for
objects), deep nesting and endless lists are refused at the first one met, while reading, not after. Scalars stay text:
what `yes`, `1:30` or `.nan` mean is for the one who reads the value.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import yaml

from tsbs_daw.core.errors import PresetError
from tsbs_daw.effects.table import did_you_mean

LARGEST_BYTES = 64 * 1024
DEEPEST = 24
MOST_NODES = 2000

Entries = dict[str, tuple[yaml.ScalarNode, yaml.Node]]

_TOO_DEEP = f"this is nested more than {DEEPEST} deep; a preset is not"
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, stopped at the first node that a preset may not have."""

    def __init__(self, text: str, path: Path):
        super().__init__(text)
        self.path, self.depth, self.nodes = path, 0, 0

    def fetch_flow_collection_start(self, token_class):
        # The scanner reads ahead of the composer, and the time it takes grows with the square of the open brackets.
        if self.flow_level >= DEEPEST:
            self._refuse(_TOO_DEEP, self.get_mark())
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent, index):
        event = self.peek_event()
        self.nodes += 1
        self.depth += 1
        if problem := self._problem(event):
            self._refuse(problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, problem: str, mark: yaml.Mark) -> None:
        raise at(problem, self.path, mark)

    def _problem(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            return "anchors (&) and aliases (*) are not allowed in a preset; write the value out"
        if getattr(event, "tag", None) is not None:
            return "tags (!) are not allowed in a preset; remove it"
        if self.depth > DEEPEST:
            return _TOO_DEEP
        if self.nodes > MOST_NODES:
            return f"the preset has more than {MOST_NODES} values; split it into several presets"
        return ""


class Document:
    """One YAML file as nodes, and the questions to ask of them. Every complaint names file, line and column."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, node: yaml.Node, message: str) -> PresetError:
        """An error at a node, to be raised."""
        return at(message, self.path, node.start_mark)

    def parse(self, data: bytes) -> yaml.MappingNode:
        """The document's outermost node.

        Raises: PresetError: larger than 64 KiB, not UTF-8, not YAML, or with something that is not allowed
        """
        if len(data) > LARGEST_BYTES:
            raise PresetError(f"the preset is larger than {LARGEST_BYTES // 1024} KiB; make it shorter.", self.path)
        text = self._text(data)
        try:
            root = _compose(_BoundedLoader(text, self.path))
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error
        if root is None:
            raise PresetError("the preset is empty; it needs at least `outputs:`.", self.path, 1, 1)
        if not isinstance(root, yaml.MappingNode):
            raise self.fail(root, "a preset is a mapping with `description:` and `outputs:`")
        return root

    def _text(self, data: bytes) -> str:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PresetError("the preset is not UTF-8 text; save it as UTF-8.", self.path, line) from error
        if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
            line, start = text.count("\n", 0, bad.start()) + 1, text.rfind("\n", 0, bad.start()) + 1
            raise PresetError(
                f"the character U+{ord(bad.group()):04X} is not allowed; remove it.",
                self.path,
                line,
                bad.start() - start + 1,
            )
        return text

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> PresetError:
        message = " ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces" if "\\t" in message else ""
        return at(f"not valid YAML: {message}{hint}", self.path, error.problem_mark or error.context_mark)

    def mapping(self, node: yaml.Node, what: str, known: Collection[str] | None = None) -> Entries:
        """The entries of a mapping by name; every key once and, if `known` is given, one of these.

        Args: what: names the mapping in a message: "an output"
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
                closest = did_you_mean(key.value, list(known)) or f"; it knows {', '.join(known) or 'none'}"
                raise self.fail(key, f"{what} has no {key.value!r}{closest}")
            entries[key.value] = (key, value)
        return entries

    def items(self, node: yaml.Node, what: str, most: int) -> list[yaml.Node]:
        """The items of a list; an empty value is an empty list."""
        if is_empty(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, f"{what} must be a list: one line with `- ` for each")
        if len(node.value) > most:
            raise self.fail(node, f"{what} has {len(node.value)} entries, and {most} are allowed")
        return node.value

    def text(self, node: yaml.Node, what: str) -> str:
        """A scalar that is not empty."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, f"{what} must be a text")
        if not node.value.strip():
            raise self.fail(node, f"{what} is empty; give it a value (a value with # needs quotes)")
        return node.value

    def number(self, node: yaml.Node, what: str, unit: str = "") -> float:
        """A finite decimal number, without quotes; `unit` may follow it."""
        text = self.text(node, what)
        if node.style is not None:
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


def at(message: str, path: Path, mark: yaml.Mark | None) -> PresetError:
    """An error with its place; lines and columns count from 1. Closes the sentence."""
    place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return PresetError(message if message.endswith("?") else f"{message}.", path, *place)


def is_empty(node: yaml.Node) -> bool:
    """`key:` with nothing after it."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null")


def like_number(text: str) -> bool:
    """Whether a text is written as a number, be it NaN."""
    return bool(_NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text))


def _compose(loader: _BoundedLoader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()
