"""What a REAPER project is made of, as far as the scripts see it: tracks, items, takes, sources; and undo.

Handles die: with what they name, and with every undo, as in REAPER. A dead handle is a misuse.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

TRACK_DEFAULTS = {
    "I_FOLDERDEPTH": 0.0, "B_MUTE": 0.0, "I_CUSTOMCOLOR": 0.0, "D_VOL": 1.0, "I_SELECTED": 0.0, "D_PAN": 0.0,
    "D_WIDTH": 1.0, "D_PANLAW": -1.0, "B_PHASE": 0.0, "I_NCHAN": 2.0, "C_BEATATTACHMODE": -1.0, "D_PLAY_OFFSET": 0.0,
    "I_PLAY_OFFSET_FLAG": 0.0, "B_MAINSEND": 1.0, "I_FREEMODE": 0.0, "I_PANMODE": -1.0, "I_SOLO": 0.0,
}  # fmt: skip
ITEM_DEFAULTS = {
    "D_POSITION": 0.0, "D_LENGTH": 0.0, "D_VOL": 1.0, "B_MUTE": 0.0, "B_LOOPSRC": 1.0, "B_UISEL": 0.0,
    "D_FADEINLEN": 0.01, "D_FADEOUTLEN": 0.01, "D_FADEINLEN_AUTO": -1.0, "D_FADEOUTLEN_AUTO": -1.0,
    "D_FADEINDIR": 0.0, "D_FADEOUTDIR": 0.0, "C_FADEINSHAPE": 0.0, "C_FADEOUTSHAPE": 0.0, "D_SNAPOFFSET": 0.0,
    "C_BEATATTACHMODE": -1.0, "C_AUTOSTRETCH": -1.0, "C_LANEPLAYS": 2.0, "I_FIXEDLANE": 0.0,
}  # fmt: skip
TAKE_EFFECT = 0.5
TAKE_DEFAULTS = {
    "D_STARTOFFS": 0.0, "D_PLAYRATE": 1.0, "D_PITCH": 0.0, "D_VOL": 1.0, "D_PAN": 0.0, "D_PANLAW": -1.0,
    "I_CHANMODE": 0.0, "B_PPITCH": 1.0,
}  # fmt: skip


def new_guid() -> str:
    return "{" + str(uuid.uuid4()).upper() + "}"


class Handle:
    """Something that a script holds on to. `alive` turns false once it is gone."""

    kind = ""

    def __init__(self) -> None:
        self.alive = True
        self.strings: dict[str, str] = {"GUID": new_guid()}
        self.values: dict[str, float] = {}

    @property
    def guid(self) -> str:
        return self.strings["GUID"]


class Source(Handle):
    """A PCM source. `owned` by a take once it is set there; building its peaks takes some calls.

    file: (samples, channels), read as it is; type: WAVE, MIDI, VIDEO, SECTION, ...
    """

    kind = "PCM_source"

    def __init__(self, path: str = "", type_: str = "WAVE", parent: Source | None = None):
        super().__init__()
        self.path, self.type, self.parent = path, type_, parent
        self.owned, self.peaks_left, self.peaks_ready = False, 3, False
        self.section: tuple[float, float, bool] | None = None  # start, length in seconds, reversed
        self.was_offline = False  # REAPER 7.75: its rate and length stay 0, also when the file is back
        self.rate, self.audio = 0, np.zeros((0, 1), np.float32)
        if path and Path(path).is_file() and type_ in ("WAVE", "VIDEO"):
            audio, self.rate = soundfile.read(path, dtype="float32", always_2d=True)
            self.audio = audio
        elif parent is not None:
            self.rate = parent.rate

    def copy(self) -> Source:
        """For another take: the same file, owned by it."""
        other = Source(type_=self.type, parent=self.parent)
        other.path, other.rate, other.audio, other.section = self.path, self.rate, self.audio, self.section
        other.owned, other.peaks_ready = True, self.peaks_ready
        return other

    @property
    def channels(self) -> int:
        if self.parent is not None:
            return self.parent.channels
        return self.audio.shape[1] if self.rate else 0

    @property
    def length_s(self) -> float:
        if self.section:
            return self.section[1]
        return len(self.audio) / self.rate if self.rate else 0.0

    def at(self, seconds: np.ndarray, *, loop: bool) -> np.ndarray:
        """What it plays at these times, (samples, channels), between two samples by a straight line."""
        if self.was_offline:
            return np.zeros((len(seconds), max(1, self.channels)))
        if loop and self.length_s:
            seconds = np.mod(seconds, self.length_s)
        if self.section:
            start, length, backwards = self.section
            inside = (seconds >= 0) & (seconds < length)
            source = start + (length - 1 / self.rate - seconds if backwards else seconds)
            return self.parent.at(source, loop=False) * inside[:, None]
        at = seconds * self.rate
        low = np.floor(at + 1e-6).astype(int)
        part = np.clip(at - low, 0, 1)[:, None]
        padded = np.vstack([self.audio, np.zeros((2, self.channels), np.float32)])
        inside = (low >= 0) & (low < len(self.audio))
        low = np.clip(low, 0, len(self.audio))
        part[part < 1e-5] = 0
        return (padded[low] * (1 - part) + padded[low + 1] * part) * inside[:, None]


class Take(Handle):
    kind = "MediaItem_Take"

    def __init__(self, item: Item, source: Source | None = None):
        super().__init__()
        self.item, self.source = item, source
        self.values = dict(TAKE_DEFAULTS)
        self.strings["P_NAME"] = ""
        self.stretch_markers = self.effects = 0
        self.effect_level = TAKE_EFFECT  # what all its effects together do
        # name in a chunk (VOLENV, PANENV, MUTEENV, PITCHENV) -> points: seconds from the item's start, times the
        # playrate (SWS, pull request 1413), and value
        self.envelopes: dict[str, list[tuple[float, float]]] = {}

    def pitch_at(self, seconds: np.ndarray) -> np.ndarray:
        """Semitones, which are in an accessor's samples already; here they make them lower in level."""
        points = self.envelopes.get("PITCHENV") or [(0.0, 0.0)]
        at, values = zip(*points, strict=True)
        return np.interp(seconds * self.values["D_PLAYRATE"], at, values) + self.values["D_PITCH"]

    def volume_at(self, seconds: np.ndarray) -> np.ndarray:
        """Take volume and its envelope: what comes after an accessor's samples (SWS BR_Loudness, SWS issue 957)."""
        points = self.envelopes.get("VOLENV") or [(0.0, 1.0)]
        at, values = zip(*points, strict=True)
        return np.interp(seconds * self.values["D_PLAYRATE"], at, values) * abs(self.values["D_VOL"])


class Item(Handle):
    kind = "MediaItem"

    def __init__(self, track: Track):
        super().__init__()
        self.track, self.takes, self.active = track, [], 0
        self.values = dict(ITEM_DEFAULTS)

    @property
    def take(self) -> Take | None:
        return self.takes[self.active] if self.takes else None

    def audio_at(self, seconds: np.ndarray, channels: int) -> np.ndarray:
        """What the item's take plays, in seconds from the item's start, before volumes, fades and effects."""
        take = self.take
        at = take.values["D_STARTOFFS"] + seconds * take.values["D_PLAYRATE"]
        sound = take.source.at(at, loop=bool(self.values["B_LOOPSRC"]))
        sound = sound * 2.0 ** (-take.pitch_at(seconds)[:, None] / 12)
        mode = take.values["I_CHANMODE"]
        if mode == 2:
            sound = sound.mean(axis=1, keepdims=True)
        elif mode in (3, 4):
            sound = sound[:, [min(int(mode) - 3, sound.shape[1] - 1)]]
        inside = (seconds >= -1e-9) & (seconds < self.values["D_LENGTH"] - 1e-9)
        columns = [min(column, sound.shape[1] - 1) for column in range(channels)]
        return (sound * inside[:, None])[:, columns]


class Track(Handle):
    kind = "MediaTrack"

    def __init__(self, name: str = ""):
        super().__init__()
        self.values = dict(TRACK_DEFAULTS)
        self.strings["P_NAME"] = name
        self.items: list[Item] = []
        self.effects: list[float] = []  # each multiplies what goes through it
        self.sends: list[dict] = []  # "to": the GUID of a track; "D_VOL", ...
        self.outputs: list[dict] = []  # to the hardware

    @property
    def name(self) -> str:
        return self.strings["P_NAME"]


@dataclass
class Snapshot:
    label: str
    tracks: list[dict]


@dataclass(eq=False)
class Project(Handle):
    """A project in a tab."""

    folder: Path
    name: str = "song.RPP"
    sample_rate: int = 48000
    kind = "ReaProject"

    tracks: list[Track] = field(default_factory=list)
    ext_state: dict[tuple[str, str], str] = field(default_factory=dict)
    info: dict[str, float] = field(default_factory=dict)
    info_strings: dict[str, str] = field(default_factory=dict)
    regions: list[tuple[float, float, str]] = field(default_factory=list)
    time_selection: tuple[float, float] = (0.0, 0.0)
    tempo: list[dict] = field(default_factory=list)  # markers: time, bpm, signature, flags; in order of time
    playrate: float = 1.0
    cursor: float = 0.0
    changes: int = 0  # how often it was changed, as far as a script is told

    def __post_init__(self) -> None:
        super().__init__()
        self.undo_steps: list[Snapshot] = []
        self.undo_depth = 0
        self.is_dirty = False  # told so by a script; undo points make it dirty too
        self._before: list[dict] = []

    # What a user does

    def add_track(self, name: str = "", depth: int = 0, at: int | None = None) -> Track:
        track = Track(name)
        track.values["I_FOLDERDEPTH"] = float(depth)
        self.tracks.insert(len(self.tracks) if at is None else at, track)
        return track

    def add_item(
        self, track: Track, path: Path | str, position: float, length: float, *, type_: str = "WAVE", **take: float
    ) -> Item:
        item = Item(track)
        item.values |= {"D_POSITION": position, "D_LENGTH": length, "B_UISEL": 1.0}
        item.takes.append(Take(item, Source(str(path), type_)))
        item.take.source.owned = True
        item.take.values |= take
        item.take.strings["P_NAME"] = Path(str(path)).stem
        track.items.append(item)
        return item

    def remove_item(self, item: Item) -> None:
        item.track.items.remove(item)
        kill(item)

    @property
    def items(self) -> list[Item]:
        return [item for track in self.tracks for item in track.items]

    def names(self) -> list[str]:
        return [track.name for track in self.tracks]

    def levels(self) -> list[int]:
        """How deep each track lies. A project whose folders are not balanced ends on another level than 0."""
        depths = [int(track.values["I_FOLDERDEPTH"]) for track in self.tracks]
        return [0, *itertools.accumulate(depths)][:-1] if depths else []

    def track_named(self, name: str) -> Track:
        (found,) = [track for track in self.tracks if track.name == name]
        return found

    def as_saved(self, path: Path) -> Project:
        """The project as it comes back from its file."""
        again = Project(path.parent, path.name, self.sample_rate, ext_state=dict(self.ext_state))
        again.tracks = [thaw(freeze(track)) for track in self.tracks]
        for handle in [*again.tracks, *again.items]:
            handle.strings = {name: in_a_file(value) for name, value in handle.strings.items()}
        return again

    # Undo

    def add_undo_point(self, label: str) -> None:
        """Of a script that ended without `defer`, or of the user."""
        self.undo_steps.append(Snapshot(label, [freeze(track) for track in self.tracks]))

    def begin(self) -> None:
        if self.undo_depth == 0:
            self._before = [freeze(track) for track in self.tracks]
        self.undo_depth += 1

    def end(self, label: str) -> None:
        self.undo_depth -= 1
        self.changes += 1
        if self.undo_depth == 0:
            self.undo_steps.append(Snapshot(label, self._before))

    def undo(self) -> bool:
        if not self.undo_steps:
            return False
        self.changes += 1
        for track in self.tracks:
            kill(track)
        self.tracks[:] = [thaw(frozen) for frozen in self.undo_steps.pop().tracks]
        return True


def in_a_file(text: str) -> str:
    """A project file has three kinds of quotes, no escape for them, and no line break inside a text."""
    text = text.replace("\n", " ")
    return text.replace("`", "'") if all(mark in text for mark in "\"'`") else text


def kill(handle: Handle) -> None:
    handle.alive = False
    for below in (*getattr(handle, "items", ()), *getattr(handle, "takes", ())):
        kill(below)
    source = getattr(handle, "source", None)
    if source is not None:
        source.alive = False


def freeze(track: Track) -> dict:
    """Everything about a track, without handles."""
    return {
        "values": dict(track.values),
        "strings": dict(track.strings),
        "effects": list(track.effects),
        "sends": [dict(send) for send in track.sends],
        "outputs": [dict(output) for output in track.outputs],
        "items": [
            {
                "values": dict(item.values),
                "strings": dict(item.strings),
                "active": item.active,
                "takes": [
                    {key: value for key, value in vars(take).items() if key not in ("item", "alive")}
                    | {"values": dict(take.values), "strings": dict(take.strings)}
                    for take in item.takes
                ],
            }
            for item in track.items
        ],
    }


def thaw(frozen: dict) -> Track:
    track = Track()
    track.values, track.strings = dict(frozen["values"]), dict(frozen["strings"])
    track.effects, track.sends = list(frozen["effects"]), [dict(send) for send in frozen["sends"]]
    track.outputs = [dict(output) for output in frozen["outputs"]]
    for below in frozen["items"]:
        item = Item(track)
        item.values, item.strings, item.active = dict(below["values"]), dict(below["strings"]), below["active"]
        for lowest in below["takes"]:
            take = Take(item)
            vars(take).update(lowest | {"values": dict(lowest["values"]), "strings": dict(lowest["strings"])})
            if take.source is not None:
                take.source.alive = take.source.owned = True
            item.takes.append(take)
        track.items.append(item)
    return track
