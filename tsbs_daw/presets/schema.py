"""Read the YAML of a preset: every value is checked, and every error states file, line and column.

description: what it is for
outputs:
  - name: instrumental
    from: [drums, bass, {other: -2 dB}]
    chain:
      - HighpassFilter: {cutoff_frequency_hz: 30}
      - Invert
    color: "#4caf50"
passes:
  - {stem: other, model: htdemucs_6s, keep: [guitar, {piano: keys}]}
delivery:
  format: wav24
  names: "{artist} - {title} [{bpm} BPM {camelot}] {stem}"
  loudness: -14 LUFS
  sessions: [rpp, dawproject]
  analysis: true
  loops: [4, 8]
  stem_mp4: true
  markers: bars
  source: copy
  embed: false
  stems: [vocals, rest]
  residual: separate
  quality: best
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tsbs_daw.audio.formats import canonical_format
from tsbs_daw.core.documents import Document, is_empty, is_quoted, like_number
from tsbs_daw.core.errors import did_you_mean
from tsbs_daw.effects.table import (
    CONTAINERS,
    EFFECT_NAMES,
    EFFECTS,
    PLUGIN,
    Effect,
    EffectKind,
    Output,
    Parameter,
    Value,
)
from tsbs_daw.presets import rules
from tsbs_daw.presets.delivery import PLAIN, DeliveryOptions
from tsbs_daw.presets.passes import STEM, Pass, read_passes, stem_name

MOST_OUTPUTS = 32
MOST_SOURCES = 32
MOST_EFFECTS = 32
LONGEST_NAME = 64
LONGEST_DESCRIPTION = 1000
QUIETEST_DB, LOUDEST_DB = -100.0, 36.0

# Defaults for presets without colours: evenly spread hues, light enough for black text.
COLORS = ("#4caf50", "#42a5f5", "#ffa726", "#ab47bc", "#26c6da", "#ef5350", "#d4e157", "#8d6e63")

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_UNSAFE = re.compile(r'[<>:"/\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class PresetContent:
    """What a preset file says."""

    description: str
    outputs: tuple[Output, ...]
    passes: tuple[Pass, ...]
    delivery: DeliveryOptions


class PresetReader:
    """Reads one preset file. Relative paths in it are relative to its folder."""

    def __init__(self, path: Path):
        self.document, self.folder = Document(path), path.absolute().parent

    def read(self, data: bytes) -> PresetContent:
        """Read the whole file.

        Raises:
            PresetError: with file, line and column
        """
        root = self.document.parse(data)
        entries = self.document.mapping(root, "a preset", ("description", "outputs", "passes", "delivery"))
        description = ""
        if "description" in entries:
            node = entries["description"][1]
            description = " ".join(self.document.text(node, "description").split())
            if len(description) > LONGEST_DESCRIPTION:
                raise self.document.fail(node, f"description is longer than {LONGEST_DESCRIPTION} characters")
        if not {"outputs", "passes"} & set(entries):
            raise self.document.fail(root, "the preset has no `outputs:`; write `outputs: []` for stems only")
        nodes = self.document.items(entries["outputs"][1], "outputs", MOST_OUTPUTS) if "outputs" in entries else []
        outputs: list[Output] = []
        for node in nodes:
            outputs.append(self._output(node, outputs))
        section = entries.get("delivery")
        delivery = PLAIN if section is None or is_empty(section[1]) else read_delivery(self.document, section[1])
        passes = read_passes(self.document, entries["passes"][1], self.folder) if "passes" in entries else ()
        return PresetContent(description, tuple(outputs), passes, delivery)

    def _output(self, node: yaml.Node, before: list[Output]) -> Output:
        entries = self.document.mapping(node, "an output", ("name", "from", "chain", "color"))
        for needed in ("name", "from"):
            if needed not in entries:
                raise self.document.fail(node, f"an output needs `{needed}:`")
        name = self._name(entries["name"][1], [output.name for output in before])
        sources = self._sources(entries["from"][1])
        chain = self._chain(entries["chain"][1], "chain") if "chain" in entries else ()
        color = COLORS[len(before) % len(COLORS)]
        if "color" in entries:
            color_node = entries["color"][1]
            color = self.document.text(color_node, "color")
            if not _COLOR.fullmatch(color):
                raise self.document.fail(color_node, f'color must be like "#4caf50", in quotes, not {color[:40]!r}')
        return Output(name, tuple(sources), tuple(sources.values()), chain, color.lower())

    def _name(self, node: yaml.Node, taken: list[str]) -> str:
        name = self.document.text(node, "name")
        if problem := name_problem(name):
            raise self.document.fail(node, f"the output name {name[:80]!r} {problem}, and it becomes a file name")
        if any(name.casefold() == other.casefold() for other in taken):
            raise self.document.fail(node, f"two outputs are named {name!r} (case is ignored); rename one")
        return name

    def _sources(self, node: yaml.Node) -> dict[str, float]:
        """Stem names with their gains in dB. A single name needs no list."""
        is_single = isinstance(node, yaml.ScalarNode) and not is_empty(node)
        nodes = [node] if is_single else self.document.items(node, "from", MOST_SOURCES)
        if not nodes:
            raise self.document.fail(node, "`from:` is empty; name at least one stem")
        sources: dict[str, float] = {}
        for item in nodes:
            stem, gain_db, place = self._source(item)
            if not STEM.fullmatch(stem):
                raise self.document.fail(place, f"{stem[:80]!r} is not a valid stem name")
            if stem in sources:
                raise self.document.fail(place, f"the stem {stem!r} is named twice; remove one")
            sources[stem] = gain_db
        return sources

    def _source(self, item: yaml.Node) -> tuple[str, float, yaml.Node]:
        if isinstance(item, yaml.ScalarNode):
            return self.document.text(item, "a stem's name"), 0.0, item
        entries = self.document.mapping(item, "a stem with a gain")
        if len(entries) != 1:
            raise self.document.fail(item, "a stem with a gain is written `{vocals: -9 dB}`, one stem per entry")
        ((stem, (key, value)),) = entries.items()
        gain_db = self.document.number(value, f"the gain of {stem!r}", unit="dB")
        if not QUIETEST_DB <= gain_db <= LOUDEST_DB:
            limits = f"from {QUIETEST_DB:g} to {LOUDEST_DB:g} dB"
            raise self.document.fail(value, f"the gain of {stem!r} must be {limits}, not {gain_db:g}")
        return stem, gain_db, key

    def _chain(self, node: yaml.Node, what: str) -> tuple[Effect, ...]:
        return tuple(self._effect(item) for item in self.document.items(node, what, MOST_EFFECTS))

    def _effect(self, node: yaml.Node) -> Effect:
        if isinstance(node, yaml.ScalarNode):
            name, key, value = self.document.text(node, "an effect's name"), node, None
        else:
            entries = self.document.mapping(node, "an effect")
            if len(entries) != 1:
                raise self._not_one_effect(node, list(entries))
            ((name, (key, value)),) = entries.items()
            value = None if is_empty(value) else value
        if name in CONTAINERS:
            children = self._chain(value, name) if value is not None else ()
            if not children:
                raise self.document.fail(key, f"{name} has no effects; give it a list of them")
            return Effect(name, children=children)
        if name == PLUGIN:
            return self._plugin(key, value)
        if name not in EFFECTS:
            closest = did_you_mean(name, EFFECT_NAMES) or f"; there are {', '.join(EFFECT_NAMES)}"
            raise self.document.fail(key, f"there is no effect {name!r}{closest}")
        return Effect(name, self._parameters(EFFECTS[name], key, value))

    def _not_one_effect(self, node: yaml.Node, names: list[str]) -> Exception:
        if len(names) > 1 and names[0] in EFFECT_NAMES and names[1] not in EFFECT_NAMES:
            hint = f"indent {names[1]!r} deeper than {names[0]!r}, or write `{names[0]}: {{{names[1]}: ...}}`"
            return self.document.fail(node, f"the parameters of an effect must be nested inside it: {hint}")
        return self.document.fail(node, "each effect of a chain needs a `- ` of its own")

    def _parameters(self, kind: EffectKind, key: yaml.Node, node: yaml.Node | None) -> dict[str, Value]:
        known = tuple(parameter.name for parameter in kind.parameters)
        entries = self.document.mapping(node, kind.name, known) if node is not None else {}
        for parameter in kind.parameters:
            if parameter.default is None and parameter.name not in entries:
                raise self.document.fail(key, f"{kind.name} needs {parameter.name!r}")
        return {name: self._value(kind, name, value) for name, (_, value) in entries.items()}

    def _value(self, kind: EffectKind, name: str, node: yaml.Node) -> Value:
        parameter, what = kind.parameter(name), f"{kind.name}'s {name}"
        assert parameter is not None, "`mapping` refuses unknown names"
        value = self._read(parameter, what, node)
        if problem := parameter.problem(value):
            raise self.document.fail(node, f"{what} {problem}")
        return value

    def _read(self, parameter: Parameter, what: str, node: yaml.Node) -> Value:
        if parameter.kind == "number":
            return self.document.number(node, what)
        text = self.document.text(node, what)
        if parameter.kind == "file":
            return str(self.folder / Path(text).expanduser())
        if parameter.kind == "switch":
            return {"true": True, "false": False}.get(text.lower(), text) if not is_quoted(node) else text
        return text

    def _plugin(self, key: yaml.Node, node: yaml.Node | None) -> Effect:
        """Read `VST3: {path: ..., plugin: ..., parameters: {...}}`. Loading the plug-in checks its parameters."""
        if node is None:
            raise self.document.fail(key, "VST3 needs `path:`, the file of the plug-in")
        entries = self.document.mapping(node, PLUGIN, ("path", "plugin", "parameters"))
        if "path" not in entries:
            raise self.document.fail(key, "VST3 needs `path:`, the file of the plug-in")
        path = Path(self.document.text(entries["path"][1], "path")).expanduser()
        location = str(path) if path.name == str(path) else str(self.folder / path)
        plugin = self.document.text(entries["plugin"][1], "plugin") if "plugin" in entries else ""
        parameters: dict[str, Value] = {}
        if "parameters" in entries and not is_empty(entries["parameters"][1]):
            plugin_parameters = self.document.mapping(entries["parameters"][1], "the plug-in's parameters")
            parameters = {name: self._free_value(name, value) for name, (_, value) in plugin_parameters.items()}
        return Effect(PLUGIN, parameters, path=location, plugin=plugin)

    def _free_value(self, name: str, node: yaml.Node) -> Value:
        """Unquoted true, false or a number; anything else is text, such as `12 dB/oct`."""
        text = self.document.text(node, name)
        if not is_quoted(node) and text.lower() in ("true", "false"):
            return text.lower() == "true"
        return self.document.number(node, name) if not is_quoted(node) and like_number(text) else text


def name_problem(name: str) -> str | None:
    """Why a name is invalid for an output; None if it is valid. It must be the same file name on every system."""
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    if unsafe := _UNSAFE.search(name):
        return f"has the character {unsafe.group()!r}"
    if any(unicodedata.category(char)[0] == "C" or (char.isspace() and char != " ") for char in name):
        return "has an invisible character"
    if name != " ".join(name.split()) or name.strip(" .") != name:
        return "begins or ends with a space or a dot, or has two spaces"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in composed form (NFC)"
    if _DEVICE.fullmatch(name):
        return "is a reserved name on Windows"
    return None


DELIVERY_KEYS = (
    "format", "names", "loudness", "sessions", "analysis", "loops", "stem_mp4", "markers", "source", "embed",
    "stems", "residual", "quality",
)  # fmt: skip


_CHOICES = {
    "format": rules.FORMATS, "markers": rules.MARKERS, "source": rules.SOURCES, "residual": rules.RESIDUALS,
    "quality": rules.QUALITIES,
}  # fmt: skip


def read_delivery(document: Document, node: yaml.Node) -> DeliveryOptions:
    """Read the `delivery:` section.

    Raises:
        PresetError: with file, line and column
    """
    entries = document.mapping(node, "delivery", DELIVERY_KEYS)
    found: dict[str, Any] = {}
    for name, (_, value) in entries.items():
        if name == "names":
            found["names"] = _template(document, value)
        elif name == "loudness":
            found["loudness_lufs"] = _loudness_lufs(document, value)
        elif name == "sessions":
            found["sessions"] = _sessions(document, value)
        elif name == "loops":
            found["loops"] = _loops(document, value)
        elif name == "stems":
            found["stems"] = _stems(document, value)
        elif name in ("analysis", "stem_mp4", "embed"):
            found[name] = _switch(document, value, name)
        else:
            found[name] = _choice(document, value, name, _CHOICES[name])
    delivery = DeliveryOptions(**found)
    if "analysis" in entries and not delivery.analysis and delivery.analyses:
        raise document.fail(entries["analysis"][1], "the loops or the names need the analysis; remove `analysis:`")
    if problem := delivery.problem():
        raise document.fail(entries["format" if delivery.format == "mp3" else "stems"][1], problem)
    return delivery


def _choice(document: Document, node: yaml.Node, what: str, choices: Sequence[str]) -> str:
    text = document.text(node, what)
    text = canonical_format(text) if what == "format" else text
    if text not in choices:
        closest = did_you_mean(text, list(choices)) or f"; there are {', '.join(choices)}"
        raise document.fail(node, f"invalid {what}: {text[:40]!r}{closest}")
    return text


def _switch(document: Document, node: yaml.Node, what: str) -> bool:
    text = document.text(node, what).lower()
    if is_quoted(node) or text not in ("true", "false"):
        raise document.fail(node, f"{what} must be true or false")
    return text == "true"


def _template(document: Document, node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):  # what YAML makes of unquoted {artist}
        raise document.fail(node, 'names must be quoted text, like "{title} {stem}"')
    template = " ".join(document.text(node, "names").split())
    if problem := rules.template_problem(template):
        raise document.fail(node, f"the template {template[:80]!r} {problem}")
    return template


def _loudness_lufs(document: Document, node: yaml.Node) -> float:
    value = document.number(node, "loudness", unit="LUFS")
    if not rules.QUIETEST_LUFS <= value <= rules.LOUDEST_LUFS:
        limits = f"from {rules.QUIETEST_LUFS:g} to {rules.LOUDEST_LUFS:g} LUFS"
        raise document.fail(node, f"loudness must be {limits}, not {value:g}")
    return value


def _sessions(document: Document, node: yaml.Node) -> tuple[str, ...]:
    sessions: list[str] = []
    for item in document.items(node, "sessions", len(rules.SESSIONS)):
        session = _choice(document, item, "session", rules.SESSIONS)
        if session in sessions:
            raise document.fail(item, f"the session {session!r} is named twice; remove one")
        sessions.append(session)
    return tuple(sessions)


def _stems(document: Document, node: yaml.Node) -> tuple[str, ...]:
    stems: list[str] = []
    for item in document.items(node, "stems", MOST_SOURCES):
        stem = stem_name(document, item)
        if stem in stems:
            raise document.fail(item, f"the stem {stem!r} is named twice; remove one")
        stems.append(stem)
    return tuple(stems)


def _loops(document: Document, node: yaml.Node) -> tuple[int, ...]:
    is_single = isinstance(node, yaml.ScalarNode) and not is_empty(node)
    bars: list[int] = []
    for item in [node] if is_single else document.items(node, "loops", 8):
        count = document.number(item, "a loop's length", unit="bars")
        if count != int(count) or not rules.FEWEST_BARS <= count <= rules.MOST_BARS:
            limits = f"from {rules.FEWEST_BARS} to {rules.MOST_BARS}"
            raise document.fail(item, f"a loop must have a whole number of bars {limits}, not {count:g}")
        if int(count) in bars:
            raise document.fail(item, f"loops of {count:g} bars are named twice; remove one")
        bars.append(int(count))
    return tuple(bars)
