"""Presets: YAML files that define the outputs made from a song's stems. Found by name or by path.

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

The user's own folder is searched before the shipped presets, so that a shipped preset can be copied, changed, and used
under its old name. Every value is checked, and every error states file, line and column. Reading a preset imports no
audio library. The sections `passes:` and `delivery:` are read by the module `delivery`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from tsbs_daw.core.config import resource_folder
from tsbs_daw.core.documents import LARGEST_BYTES, Document, is_empty, is_quoted, like_number
from tsbs_daw.core.errors import PresetError, did_you_mean, shown
from tsbs_daw.core.files import file_sha256, open_regular
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
from tsbs_daw.presets.delivery import PLAIN, STEM, DeliveryOptions, Pass, read_delivery, read_passes

__all__ = ["DeliveryOptions", "Effect", "Output", "Pass", "Preset", "list_presets", "load_preset", "preset_files"]

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A validated preset.

    Attributes:
        name: The file name without its ending.
        description: What the preset is for.
        outputs: Empty for stems only.
        path: The file.
        sha256: Hash of everything that the outputs depend on: the file, and the impulse responses that it names.
        delivery: The delivery options.
        passes: The stems to separate further with other models, in order.
    """

    name: str
    description: str
    outputs: tuple[Output, ...]
    path: Path
    sha256: str
    delivery: DeliveryOptions = PLAIN
    passes: tuple[Pass, ...] = ()

    def check_stems(self, stems: Collection[str]) -> None:
        """Check that every stem that an output uses exists, in the model or made by a pass.

        Raises:
            PresetError: A stem does not exist.
        """
        for output in self.outputs:
            for source in output.sources:
                if source not in stems:
                    raise PresetError(
                        f"the output {output.name!r} uses the stem {source!r}, but the model provides "
                        f"{', '.join(stems)}; choose another preset or model.",
                        self.path,
                    )


def preset_files(own: Path | None = None) -> dict[str, Path]:
    """Return every preset that can be used by name, valid or not, sorted by name. The user's own override shipped ones.

    Args:
        own: The user's folder, `Settings.presets`; None: only the shipped presets.
    """
    files: dict[str, Path] = {}
    for folder in (resource_folder("presets"), own):
        if folder is not None and folder.is_dir():
            files |= {path.stem: path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()}
    return dict(sorted(files.items()))


def list_presets(own: Path | None = None) -> list[Preset]:
    """Read all presets that can be used by name.

    Raises:
        PresetError: A preset is invalid; for the first one.
    """
    return [read_preset(path) for path in preset_files(own).values()]


def load_preset(name_or_path: str | Path, own: Path | None = None) -> Preset:
    """Load a preset by name (`karaoke`, `none`) or by file.

    Args:
        name_or_path: A name, or a path that ends in .yaml or .yml.
        own: The user's folder, `Settings.presets`; None: only the shipped presets.

    Raises:
        PresetError: There is no such preset, or it is invalid; with file, line and column.
    """
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or path.suffix.lower() in ENDINGS or path.name != str(name_or_path):
        return read_preset(path)
    files = preset_files(own)
    if str(name_or_path) not in files:
        closest = did_you_mean(str(name_or_path), list(files))
        raise PresetError(
            f"There is no preset {shown(name_or_path)}{closest or '.'} `tsbs-daw presets list` lists all presets."
        )
    return read_preset(files[str(name_or_path)])


def read_preset(path: Path) -> Preset:
    """Read a preset file.

    Raises:
        PresetError: The file is missing, unreadable or invalid.
    """
    path = path.absolute()
    if not path.is_file():
        raise PresetError("no such preset file; check the path.", path)
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PresetError(f"cannot read the preset ({error.strerror}); check its permissions.", path) from error
    content = PresetReader(path).read(data)
    digest = _digest(data, content.outputs)
    return Preset(path.stem, content.description, content.outputs, path, digest, content.delivery, content.passes)


def _digest(data: bytes, outputs: tuple[Output, ...]) -> str:
    digest = hashlib.sha256(data)
    for output in outputs:
        for effect in output.effects():
            if response := effect.parameters.get("impulse_response_filename"):
                path = Path(str(response))
                # A missing file does not change the hash; rendering reports it.
                digest.update(file_sha256(path).encode() if path.is_file() else b"")
    return digest.hexdigest()


# ---- reading a file --------------------------------------------------------------------------------------------------

MOST_OUTPUTS = 32
MOST_SOURCES = 32
MOST_EFFECTS = 32
LONGEST_NAME = 64
LONGEST_DESCRIPTION = 1000
QUIETEST_DB, LOUDEST_DB = -100.0, 36.0

# Colours of outputs that have none: evenly spread hues, light enough for black text.
COLORS = ("#4caf50", "#42a5f5", "#ffa726", "#ab47bc", "#26c6da", "#ef5350", "#d4e157", "#8d6e63")

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_UNSAFE = re.compile(r'[<>:"/\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class PresetContent:
    """The content of a preset file."""

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
            PresetError: The file is invalid; with line and column.
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
        """Read stem names with their gains in dB. A single name needs no list."""
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
        return self.document.fail(node, "each effect of a chain needs its own `- `")

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
        """Read an unquoted true, false or number; anything else is text, such as `12 dB/oct`."""
        text = self.document.text(node, name)
        if not is_quoted(node) and text.lower() in ("true", "false"):
            return text.lower() == "true"
        return self.document.number(node, name) if not is_quoted(node) and like_number(text) else text


def name_problem(name: str) -> str | None:
    """Return why a name is invalid for an output; None if it is valid. It must be a valid file name on every system."""
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
