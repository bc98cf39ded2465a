"""The `passes:` of a preset: stems that go through another model, which takes them apart.

passes:
  - {stem: vocals, model: lead_backing}
  - {stem: other, model: htdemucs_6s, keep: [guitar, {piano: keys}]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from tsbs_daw.core.documents import Document
from tsbs_daw.presets.rules import REST

MOST_PASSES = 8
MOST_KEPT = 16
RESERVED = (REST, "residual")

STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


@dataclass(frozen=True)
class Pass:
    """One stem through one model.

    Attributes:
        stem: The name of a stem of the job's model, or of an earlier pass.
        model: A name, or the absolute path of a file.
        keep: The stems of that model to keep, each with the name that it gets. The others become one, `<stem> rest`.
            Empty: all of them, under their own names.
    """

    stem: str
    model: str
    keep: tuple[tuple[str, str], ...] = ()


def read_passes(document: Document, node: yaml.Node, folder: Path) -> tuple[Pass, ...]:
    """Read the `passes:` section.

    Args: folder: what paths of models are relative to

    Raises:
        PresetError: with file, line and column
    """
    found: list[Pass] = []
    for item in document.items(node, "passes", MOST_PASSES):
        entries = document.mapping(item, "a pass", ("stem", "model", "keep"))
        for needed in ("stem", "model"):
            if needed not in entries:
                raise document.fail(item, f"a pass needs `{needed}:`, as in `{{stem: vocals, model: NAME}}`")
        stem = stem_name(document, entries["stem"][1])
        if any(stem == other.stem for other in found):
            raise document.fail(entries["stem"][1], f"two passes take the stem {stem!r}; remove one")
        keep = _kept(document, entries["keep"][1]) if "keep" in entries else ()
        found.append(Pass(stem, _model(document, entries["model"][1], folder), keep))
    return tuple(found)


def stem_name(document: Document, node: yaml.Node) -> str:
    """The name of a stem. Raises: PresetError: it cannot be one"""
    stem = document.text(node, "a stem's name")
    if not STEM.fullmatch(stem):
        raise document.fail(node, f"{stem[:80]!r} is not a valid stem name")
    return stem


def _model(document: Document, node: yaml.Node, folder: Path) -> str:
    text = document.text(node, "model")
    is_path = Path(text).name != text or text.endswith(".safetensors")
    return str(folder / Path(text).expanduser()) if is_path else text


def _kept(document: Document, node: yaml.Node) -> tuple[tuple[str, str], ...]:
    """`[guitar, {piano: keys}]`: each stem of the model with its name."""
    kept: dict[str, str] = {}
    for item in document.items(node, "keep", MOST_KEPT):
        stem_node = name_node = item
        if isinstance(item, yaml.MappingNode):
            entries = document.mapping(item, "a stem with a new name")
            if len(entries) != 1:
                raise document.fail(item, "a stem with a new name is written `{piano: keys}`, one stem per entry")
            ((stem_node, name_node),) = entries.values()
        stem, name = stem_name(document, stem_node), stem_name(document, name_node)
        if name.casefold() in RESERVED:
            raise document.fail(name_node, f"no stem can be named {name!r}; choose another name")
        if stem in kept or name.casefold() in (other.casefold() for other in kept.values()):
            raise document.fail(item, f"the stem {name!r} is named twice; remove one")
        kept[stem] = name
    if not kept:
        raise document.fail(node, "`keep:` is empty; name at least one stem, or remove it")
    return tuple(kept.items())
