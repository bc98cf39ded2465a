"""REAPER's functions on audio: sources and their peaks, accessors, the render."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from reaper.model import Handle, Item, Source, Take, Track
from reaper.signatures import Misuse

FLOAT_WAV = "ZXZhdyAAAA=="
RENDER = 42230
FIXED_LANES = 2


class Array:
    """How a reaper.array of Lua arrives: as its size. What is read goes back beside the result."""

    kind = "reaper.array"
    alive = True

    def __init__(self, size: int):
        self.size = size


class Accessor(Handle):
    kind = "AudioAccessor"

    def __init__(self, of: Take | Track):
        super().__init__()
        self.of, self.state = of, self._now(of)

    @staticmethod
    def _now(of: Take | Track) -> str:
        items = [of.item] if isinstance(of, Take) else of.items
        return repr([(dict(item.values) | {"B_UISEL": 0}, item.take and dict(item.take.values)) for item in items])

    @property
    def changed(self) -> bool:
        return self._now(self.of) != self.state

    def read(self, rate: int, channels: int, start_s: float, count: int) -> np.ndarray:
        at = start_s + np.arange(count) / rate
        if isinstance(self.of, Take):
            return self.of.item.audio_at(at, channels)
        sound = np.zeros((count, channels))
        for item in self.of.items:
            hidden = self.of.values["I_FREEMODE"] == FIXED_LANES and not item.values["C_LANEPLAYS"]
            if not item.values["B_MUTE"] and not hidden:
                inside = at - item.values["D_POSITION"]
                gain = item.values["D_VOL"] * item.take.volume_at(inside)[:, None] * _effects(item)
                sound += item.audio_at(inside, channels) * gain
        return sound


class MediaFunctions:
    """Mixed into the stand-in, which has `spend(seconds)`."""

    # Sources

    def PCM_Source_CreateFromFile(self, path):
        self.spend(0.0003)
        try:
            source = Source(path)
        except soundfile.LibsndfileError:
            return None
        return source if source.rate else None

    def PCM_Source_Destroy(self, source):
        if source.owned:
            raise Misuse("PCM_Source_Destroy: the source belongs to a take")
        source.alive = False
        self.left_over = [other for other in self.left_over if other is not source]

    def PCM_Source_BuildPeaks(self, source, mode):
        if mode == 0:
            return 0 if source.peaks_ready else source.peaks_left
        if mode == 1:
            self.spend(0.001)
            source.peaks_left = max(0, source.peaks_left - 1)
            return source.peaks_left
        source.peaks_ready = source.peaks_left == 0
        return 0

    def GetMediaSourceType(self, source):
        return source.type

    def GetMediaSourceFileName(self, source):
        return source.path

    def GetMediaSourceLength(self, source):
        return (0.0 if source.was_offline else source.length_s), False

    def GetMediaSourceSampleRate(self, source):
        return 0 if source.was_offline else source.rate

    def GetMediaSourceNumChannels(self, source):
        return source.channels

    def GetMediaSourceParent(self, source):
        return source.parent

    # Accessors

    def CreateTakeAudioAccessor(self, take):
        self.accessors += 1
        return Accessor(take)

    def CreateTrackAudioAccessor(self, track):
        self.accessors += 1
        return Accessor(track)

    def DestroyAudioAccessor(self, accessor):
        accessor.alive = False
        self.accessors -= 1

    def AudioAccessorStateChanged(self, accessor):
        return accessor.changed

    def GetAudioAccessorSamples(self, accessor, rate, channels, start_s, count, buffer):
        if buffer.size < count * channels:
            raise Misuse("GetAudioAccessorSamples: the buffer is too short")
        if isinstance(accessor.of, Take) and channels != accessor.of.source.channels:
            # SWS, BR_Loudness: "asking for 1 channel only won't work. We must always request the real channel count"
            raise Misuse("GetAudioAccessorSamples: it has to be asked for as many channels as the source has")
        if self.in_coroutine:
            return None  # and the buffer stays as it was
        self.spend(count * channels * 1e-7)
        sound = accessor.read(rate, channels, start_s, count)
        if not sound.any():
            return 0  # silence: the buffer stays as it was
        return 1, self.caller.lua.table_from(sound.astype(np.float32).ravel().tolist())

    # Rendering

    def _render(self, project) -> None:
        numbers = {"RENDER_SETTINGS": 32, "RENDER_BOUNDSFLAG": 4, "RENDER_ADDTOPROJ": 0, "RENDER_TAILFLAG": 0}
        wrong = {name: project.info.get(name) for name, value in numbers.items() if project.info.get(name) != value}
        if wrong or project.info_strings.get("RENDER_FORMAT") != FLOAT_WAV:
            raise Misuse(f"the render is not set up: {wrong}")
        (item,) = [item for item in project.items if item.values["B_UISEL"]]
        if self.render_does == "nothing":
            return
        path = Path(project.info_strings["RENDER_FILE"], project.info_strings["RENDER_PATTERN"] + ".wav")
        channels = int(project.info["RENDER_CHANNELS"])
        soundfile.write(path, _heard(item, project.sample_rate, channels), project.sample_rate, subtype="FLOAT")
        if project.info_strings.get("RENDER_FORMAT2"):
            path.with_suffix(".mp3").touch()  # "a secondary format": the same render, once more


def _effects(item: Item) -> float:
    return item.take.effect_level if item.take.effects else 1.0


def _heard(item: Item, rate: int, channels: int) -> np.ndarray:
    samples = round(item.values["D_LENGTH"] * rate)
    sound = item.audio_at(np.arange(samples) / rate, channels)
    return (sound * _effects(item) * item.values["D_VOL"]).astype(np.float32)
