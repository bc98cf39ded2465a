"""A little material pack made on the spot: tones for notes, bursts for drums, a song's worth of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import signals
import soundfile as sf

RATE = 44100


def note_hz(note: float) -> float:
    return 440.0 * 2.0 ** ((note - 69) / 12)


def burst(seconds: float, decay_s: float, seed: int, amplitude: float = 0.5) -> np.ndarray:
    samples = int(seconds * RATE)
    return signals.noise(samples, channels=1, amplitude=amplitude / 3, seed=seed) * np.exp(
        -signals.times(samples) / decay_s
    ).astype(np.float32)


class PackWriter:
    """Writes recordings and their index."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, []

    def add(self, source: str, stem: str, kind: str, sound: np.ndarray, **more) -> str:
        """One recording; more: note, velocity, articulation, rr, speaker."""
        path = f"{source}/{kind}-{len(self.rows):03d}.wav"
        (self.folder / source).mkdir(parents=True, exist_ok=True)
        sf.write(self.folder / path, sound.T, RATE, subtype="PCM_16")
        peak_db = 20 * np.log10(max(float(np.abs(sound).max()), 1e-6))
        row = {"path": path, "source": source, "stem": stem, "kind": kind, "seconds": sound.shape[1] / RATE}
        self.rows.append({**row, "decoded_peak_db": round(float(peak_db), 1), "velocity": 1.0, **more})
        return path

    def add_tone(self, source: str, stem: str, kind: str, note: int, seconds: float = 2.0, **more) -> str:
        amplitude = 0.4 * more.get("velocity", 1.0)
        sound = signals.tone(note_hz(note), int(seconds * RATE), channels=1, amplitude=amplitude)
        return self.add(source, stem, kind, sound, note=note, **more)

    def close(self, **licence: str) -> Path:
        """Write the index and the sources. licence: what differs from CC0 in every source's entry"""
        entry = {
            "title": "tones",
            "author": "a test",
            "address": "here",
            "commit": "1",
            "licence": "CC0 1.0",
            **licence,
        }
        names = {row["source"] for row in self.rows}
        (self.folder / "sources.yaml").write_text(json.dumps(dict.fromkeys(sorted(names), entry)), encoding="utf-8")
        (self.folder / "index.json").write_text(json.dumps(self.rows), encoding="utf-8")
        return self.folder


def write_pack(folder: Path) -> Path:
    """A pack that can play whole songs: basses, guitars, keys, one kit, a loop, phrases and speech."""
    pack = PackWriter(folder)
    for note in (28, 33, 38, 43):
        pack.add_tone("electric-bass-yr", "bass", "bass-note", note, articulation="finger")
        pack.add_tone("synth-bass-1", "bass", "bass-synth-note", note)
    for note in range(40, 80, 4):
        for velocity in (0.4, 1.0):
            pack.add_tone("emilyguitar", "other", "guitar-clean-note", note, velocity=velocity)
        pack.add_tone("e-pianos", "other", "keys-note", note, articulation="wurlitzer")
        pack.add_tone("mtg-sax", "other", "sax-note", note, articulation="alto-sax")
    kit = {"kick": 0.1, "snare": 0.08, "hihat-closed": 0.03, "hihat-open": 0.4, "ride": 0.5, "crash": 0.8, "tom1": 0.1}
    for number, (kind, decay_s) in enumerate(kit.items()):
        for velocity in (0.3, 1.0):
            sound = burst(1.0, decay_s, number, 0.6 * velocity)
            pack.add("muldjordkit", "drums", kind, sound, velocity=velocity, articulation=kind)
    pack.add("sonic-pi-drums", "drums", "loop", burst(2.0, 0.5, 77), articulation="loop_a")
    pack.add("sectoid", "other", "guitar-phrase", signals.sweep(4 * RATE, channels=1))
    pack.add("kathleen", "vocals", "speech", signals.sweep(3 * RATE, channels=1, low_hz=150), speaker="kathleen")
    return pack.close()
