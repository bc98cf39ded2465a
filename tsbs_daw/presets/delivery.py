"""The delivery options of a song: format, file names, level, sessions and extras.

Presets and requests have the same options; the request overrides the preset, and the rest have their defaults. By
default, a song is delivered as 32-bit float WAV files named after their stems, with a REAPER session and no analysis.

A request states them in JSON, a preset in its `delivery:` section:

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

In its `passes:` section, a preset may separate stems further with other models:

passes:
  - {stem: vocals, model: lead_backing}
  - {stem: other, model: htdemucs_6s, keep: [guitar, {piano: keys}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator

from tsbs_daw.audio.formats import canonical_format
from tsbs_daw.core.documents import Document, is_empty, is_quoted
from tsbs_daw.core.errors import did_you_mean
from tsbs_daw.presets.rules import (
    FEWEST_BARS,
    FORMATS,
    LOUDEST_LUFS,
    MARKERS,
    MEASURED_FIELDS,
    MOST_BARS,
    QUALITIES,
    QUIETEST_LUFS,
    RESIDUALS,
    REST,
    SESSIONS,
    SOURCES,
    template_fields,
    template_problem,
)

MOST_STEMS = 32
MOST_LOOPS = 8

Format = Literal["wav32f", "wav24", "wav16", "flac24", "flac16", "aiff24", "aiff16", "mp3"]
SessionFormat = Literal["rpp", "dawproject"]


def _checked_template(text: str) -> str:
    if problem := template_problem(text):
        raise ValueError(f"the template {problem}")
    return text


class DeliveryOptions(BaseModel):
    """The delivery options that a preset or a request states, and the defaults of all others.

    In JSON, an option that is not stated is null; in a request, it is then taken from the preset.

    Attributes:
        format: Audio format, one of FORMATS.
        names: Template of FIELDS for file names, without ending; None: the stem's name.
        loudness_lufs: Target loudness of the mixture, reached by one gain for all files; None: unchanged.
        sessions: DAW sessions to write, in order; the first is the one in the job's result.
        analysis: Write tempo, beats, key, sections and the levels of every stem to analysis.json.
        loops: Lengths in bars; the stems are cut at bar lines into loops of each length.
        stem_mp4: Also write a .stem.mp4 file, for Traktor and others.
        markers: What the markers of a session show, if there is an analysis.
        source: Add the song to the session as a muted track, referenced in place or copied beside the stems.
        embed: Put the audio into the .dawproject, so that it can be mailed, and for DAWs that read no external files.
        stems: The dry stems to write, REST for the sum of the others; None: all of them.
        residual: Treatment of the residual, the part of the song that is in no stem: shared among the stems, so that
            they sum to the song, written as a stem of its own, or dropped. None: shared.
        quality: How much time the separation may take; None: normal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Annotated[Format, BeforeValidator(canonical_format)] = "wav32f"
    names: Annotated[str, AfterValidator(_checked_template)] | None = None
    loudness_lufs: float | None = Field(None, ge=QUIETEST_LUFS, le=LOUDEST_LUFS)
    sessions: tuple[SessionFormat, ...] = ("rpp",)
    analysis: bool = False
    loops: tuple[Annotated[int, Field(ge=FEWEST_BARS, le=MOST_BARS)], ...] = ()
    stem_mp4: bool = False
    markers: Literal["sections", "bars", "none"] = "sections"
    source: Literal["none", "reference", "copy"] = "none"
    embed: bool = True
    stems: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(None, max_length=MOST_STEMS)
    residual: Literal["share", "separate", "drop"] | None = None
    quality: Literal["fast", "normal", "best"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_stated(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data

    @model_serializer
    def _null_if_not_stated(self) -> dict[str, Any]:
        return {name: self.stated.get(name) for name in type(self).model_fields}

    @property
    def stated(self) -> dict[str, Any]:
        """The options that are stated, in the order of the attributes."""
        return {name: value for name, value in self.settled.items() if name in self.model_fields_set}

    @property
    def settled(self) -> dict[str, Any]:
        """All options, stated or not."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def overridden_by(self, request: DeliveryOptions | None) -> DeliveryOptions:
        """Return these options, overridden by those that a request states."""
        return self.model_copy(update=request.stated) if request else self

    @property
    def plain(self) -> bool:
        """Whether the rendered files are delivered unchanged, with a REAPER session and nothing else."""
        return self.model_copy(update={"stems": None, "residual": None, "quality": None}) == PLAIN

    @property
    def decisive(self) -> str | None:
        """The options as text that is part of a run's identity; None if they are the defaults."""
        settled = self.settled
        # Options that are not set are omitted, so that runs of versions without these options are equal.
        unset = {name for name in ("stems", "residual") if settled[name] is None}
        unset |= {"quality"} if settled["quality"] in (None, "normal") else set()
        if self.model_copy(update=dict.fromkeys(unset)) == PLAIN:
            return None
        return json.dumps({name: value for name, value in settled.items() if name not in unset}, sort_keys=True)

    @property
    def analyses(self) -> bool:
        """Whether an option needs the analysis."""
        return self.analysis or bool(self.loops) or bool(MEASURED_FIELDS & set(template_fields(self.names or "")))

    @property
    def needs_mixture(self) -> bool:
        """Whether an option needs the mixture itself."""
        return self.analyses or self.source == "copy" or self.stem_mp4 or self.loudness_lufs is not None

    def problem(self) -> str | None:
        """Return which options contradict each other, as a sentence without its full stop; None if none do."""
        if self.format == "mp3" and self.loops:
            return "MP3 cannot be cut into sample-exact loops; choose another format, or no loops"
        if self.format == "mp3" and self.stem_mp4:
            return "a .stem.mp4 made from MP3 files would be compressed twice; choose another format"
        if self.stems == () and (self.loops or self.stem_mp4):
            return f"without stems, there is nothing to make {'loops' if self.loops else 'a .stem.mp4'} from"
        return None

    def stems_problem(self, known: Sequence[str], parts: Mapping[str, Sequence[str]] | None = None) -> str | None:
        """Return why `stems` cannot be written, as a clause; None if they can.

        Args:
            known: Stems of the model.
            parts: Parts into which passes separate stems.
        """
        parts = parts or {}
        every = [*known, *(part for made in parts.values() for part in made)]
        named = [stem for stem in self.stems or () if stem != REST]
        for stem in named:
            if stem not in every:
                closest = did_you_mean(stem, [*every, REST]) or f"; it provides {', '.join(every)}."
                return f"the model has no stem {stem!r}{closest}"
        if REST in (self.stems or ()) and not (named and remainder(known, named, parts)):
            return f"`{REST}` is the sum of the stems that are not named; name at least one stem, but not all."
        return None


def remainder(stems: Sequence[str], named: Collection[str], parts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the rest of a song without the named stems: whole stems, or the other parts of a stem with named parts.

    `parts` are the parts into which passes separate stems.
    """
    remaining: list[str] = []
    for stem in stems:
        if stem in named:
            continue
        others = remainder(parts.get(stem, ()), named, parts)
        remaining += others if others != tuple(parts.get(stem, ())) else (stem,)
    return tuple(remaining)


PLAIN = DeliveryOptions()


# ---- the `delivery:` section of a preset -----------------------------------------------------------------------------

DELIVERY_KEYS = (
    "format", "names", "loudness", "sessions", "analysis", "loops", "stem_mp4", "markers", "source", "embed",
    "stems", "residual", "quality",
)  # fmt: skip

_CHOICES = {
    "format": FORMATS, "markers": MARKERS, "source": SOURCES, "residual": RESIDUALS, "quality": QUALITIES,
}  # fmt: skip


def read_delivery(document: Document, node: yaml.Node) -> DeliveryOptions:
    """Read the `delivery:` section.

    Raises:
        PresetError: The section is invalid; with file, line and column.
    """
    entries = document.mapping(node, "delivery", DELIVERY_KEYS)
    options: dict[str, Any] = {}
    for name, (_, value) in entries.items():
        if name == "names":
            options["names"] = _template(document, value)
        elif name == "loudness":
            options["loudness_lufs"] = _loudness_lufs(document, value)
        elif name == "sessions":
            options["sessions"] = _sessions(document, value)
        elif name == "loops":
            options["loops"] = _loops(document, value)
        elif name == "stems":
            options["stems"] = _stems(document, value)
        elif name in ("analysis", "stem_mp4", "embed"):
            options[name] = _switch(document, value, name)
        else:
            options[name] = _choice(document, value, name, _CHOICES[name])
    delivery = DeliveryOptions(**options)
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
    if problem := template_problem(template):
        raise document.fail(node, f"the template {template[:80]!r} {problem}")
    return template


def _loudness_lufs(document: Document, node: yaml.Node) -> float:
    value = document.number(node, "loudness", unit="LUFS")
    if not QUIETEST_LUFS <= value <= LOUDEST_LUFS:
        limits = f"from {QUIETEST_LUFS:g} to {LOUDEST_LUFS:g} LUFS"
        raise document.fail(node, f"loudness must be {limits}, not {value:g}")
    return value


def _sessions(document: Document, node: yaml.Node) -> tuple[str, ...]:
    sessions: list[str] = []
    for item in document.items(node, "sessions", len(SESSIONS)):
        session = _choice(document, item, "session", SESSIONS)
        if session in sessions:
            raise document.fail(item, f"the session {session!r} is named twice; remove one")
        sessions.append(session)
    return tuple(sessions)


def _stems(document: Document, node: yaml.Node) -> tuple[str, ...]:
    stems: list[str] = []
    for item in document.items(node, "stems", MOST_STEMS):
        stem = stem_name(document, item)
        if stem in stems:
            raise document.fail(item, f"the stem {stem!r} is named twice; remove one")
        stems.append(stem)
    return tuple(stems)


def _loops(document: Document, node: yaml.Node) -> tuple[int, ...]:
    is_single = isinstance(node, yaml.ScalarNode) and not is_empty(node)
    bars: list[int] = []
    for item in [node] if is_single else document.items(node, "loops", MOST_LOOPS):
        count = document.number(item, "a loop's length", unit="bars")
        if count != int(count) or not FEWEST_BARS <= count <= MOST_BARS:
            limits = f"from {FEWEST_BARS} to {MOST_BARS}"
            raise document.fail(item, f"a loop must have a whole number of bars {limits}, not {count:g}")
        if int(count) in bars:
            raise document.fail(item, f"loops of {count:g} bars are named twice; remove one")
        bars.append(int(count))
    return tuple(bars)


# ---- the `passes:` section of a preset -------------------------------------------------------------------------------

MOST_PASSES = 8
MOST_KEPT = 16
RESERVED = (REST, "residual")

STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")


@dataclass(frozen=True)
class Pass:
    """The separation of one stem with another model.

    Attributes:
        stem: A stem of the job's model, or a part made by an earlier pass.
        model: A name, or the absolute path of a file.
        keep: The outputs of that model to keep, each with its new name. The others are summed as `<stem> rest`. If
            empty, all are kept under their own names.
    """

    stem: str
    model: str
    keep: tuple[tuple[str, str], ...] = ()


def read_passes(document: Document, node: yaml.Node, folder: Path) -> tuple[Pass, ...]:
    """Read the `passes:` section. Paths of models are relative to `folder`.

    Raises:
        PresetError: The section is invalid; with file, line and column.
    """
    steps: list[Pass] = []
    for item in document.items(node, "passes", MOST_PASSES):
        entries = document.mapping(item, "a pass", ("stem", "model", "keep"))
        for needed in ("stem", "model"):
            if needed not in entries:
                raise document.fail(item, f"a pass needs `{needed}:`, as in `{{stem: vocals, model: NAME}}`")
        stem = stem_name(document, entries["stem"][1])
        if any(stem == other.stem for other in steps):
            raise document.fail(entries["stem"][1], f"two passes separate the stem {stem!r}; remove one")
        keep = _kept(document, entries["keep"][1]) if "keep" in entries else ()
        steps.append(Pass(stem, _model(document, entries["model"][1], folder), keep))
    return tuple(steps)


def stem_name(document: Document, node: yaml.Node) -> str:
    """Read the name of a stem.

    Raises:
        PresetError: The name is invalid.
    """
    stem = document.text(node, "a stem's name")
    if not STEM.fullmatch(stem):
        raise document.fail(node, f"{stem[:80]!r} is not a valid stem name")
    return stem


def _model(document: Document, node: yaml.Node, folder: Path) -> str:
    text = document.text(node, "model")
    is_path = Path(text).name != text or text.endswith(".safetensors")
    return str(folder / Path(text).expanduser()) if is_path else text


def _kept(document: Document, node: yaml.Node) -> tuple[tuple[str, str], ...]:
    """Read `[guitar, {piano: keys}]` into the kept outputs of the model and their new names."""
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
            raise document.fail(name_node, f"the name {name!r} is reserved; choose another name")
        if stem in kept or name.casefold() in (other.casefold() for other in kept.values()):
            raise document.fail(item, f"the stem {name!r} is named twice; remove one")
        kept[stem] = name
    if not kept:
        raise document.fail(node, "`keep:` is empty; name at least one stem, or remove it")
    return tuple(kept.items())
