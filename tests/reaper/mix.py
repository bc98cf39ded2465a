"""What is heard of a project: every track's items through its fader, pan, polarity, effects, sends and folders.

The rules are REAPER's: children go through their folder track, a track's playback offset moves its own media and
nothing else, and at another pan law than 0 dB every track attenuates what lies in the centre.
"""

from __future__ import annotations

import numpy as np
from reaper.model import Item, Project, Track

CENTRE = 10 ** (-3 / 20)  # the project's pan law in this stand-in: -3 dB


def item_sound(item: Item, seconds: np.ndarray) -> np.ndarray:
    """(samples, 2), in seconds from the item's start."""
    take = item.take
    gain = item.values["D_VOL"] * take.volume_at(seconds) * (-1.0 if take.values["D_VOL"] < 0 else 1.0)
    return item.audio_at(seconds, 2) * gain[:, None]


def _media(track: Track, at: np.ndarray) -> np.ndarray:
    sound = np.zeros((len(at), 2))
    late = 0.0 if int(track.values["I_PLAY_OFFSET_FLAG"]) & 1 else track.values["D_PLAY_OFFSET"]
    for item in track.items:
        if not item.values["B_MUTE"]:
            sound += item_sound(item, at - late - item.values["D_POSITION"])
    return sound


def _output(track: Track, sound: np.ndarray) -> np.ndarray:
    if track.values["B_MUTE"]:
        return np.zeros_like(sound)
    values = track.values
    for effect in track.effects:
        sound = np.tanh(effect * sound)  # no linear effect: stems have to reach it as their sum
    pan = values["D_PAN"]
    law = 1.0 if values["D_PANLAW"] == 1 else CENTRE
    gains = law * values["D_VOL"] * np.array([min(1, 1 - pan), min(1, 1 + pan)])
    middle, side = sound.mean(axis=1, keepdims=True), (sound[:, :1] - sound[:, 1:]) / 2 * values["D_WIDTH"]
    return np.hstack([middle + side, middle - side]) * gains * (-1 if values["B_PHASE"] else 1)


def of_project(project: Project, from_s: float, samples: int, rate: int = 44100) -> np.ndarray:
    """The master's input, (samples, 2)."""
    at = from_s + np.arange(samples) / rate
    master, sent = np.zeros((samples, 2)), {}
    open_folders: list[tuple[Track, np.ndarray]] = []

    def close(track: Track, sound: np.ndarray) -> None:
        made = _output(track, sound + sent.pop(track.guid, 0.0))
        for send in track.sends:
            sent[send["to"]] = sent.get(send["to"], 0.0) + made * send["D_VOL"]
        if track.values["B_MAINSEND"]:
            bus = open_folders[-1][1] if open_folders else master
            bus += made

    for track in project.tracks:
        depth = int(track.values["I_FOLDERDEPTH"])
        sound = _media(track, at)
        if depth == 1:
            open_folders.append((track, sound))
            continue
        close(track, sound)
        for _ in range(-depth):
            close(*open_folders.pop())
    return master
