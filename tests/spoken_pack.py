"""A small material pack of sentences that the project's own formant voice speaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile as sf

from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.voice import random_singer, sing

SCORE = compose(1000, 6.0, style="pop")
TEXT = (
    (("s",), ("ah",)), (("m",), ("ee",)), (("t",), ("oh",)), (("l",), ("eh",)),
    (("sh",), ("ah",)), (("n",), ("oo",)), (("k",), ("ee",)), (("d",), ("ah",)),
)  # fmt: skip


def sentence(pitch: float = 46.0, seed: int = 1) -> np.ndarray:
    """Eight syllables at an even pitch and a quarter of a second each: (samples,) float32."""
    beats = 0.28 * SCORE.tempo_bpm / 60
    start = 0.4 * SCORE.tempo_bpm / 60
    line = tuple(
        Sung(start + number * beats, beats * 0.9, pitch, 0.9, onset, vowel, (), phrase_start=False)
        for number, (onset, vowel) in enumerate(TEXT)
    )
    singer = random_singer("baritone", "rap", stream(seed, "singer"))
    return sing(line, singer, SCORE, 3 * SAMPLE_RATE, stream(seed, "take"), 0.0)


def write_pack(folder: Path, sentences: int = 3) -> Path:
    """A pack of one speaker, with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(sentences):
        name = f"speaker__{number}.wav"
        sf.write(folder / name, sentence(46.0 + number, number), SAMPLE_RATE)
        rows.append(
            {
                "path": name,
                "source": "speakers",
                "stem": "vocals",
                "kind": "speech",
                "speaker": "one",
                "sex": "m",
                "seconds": 3.0,
                "channels": 1,
                "f0_median_hz": 120.0,
            }
        )
    (folder / "index.json").write_text(json.dumps(rows))
    source = {"title": "sentences", "author": "a test", "address": "here", "commit": "1", "licence": "CC0 1.0"}
    (folder / "sources.yaml").write_text(json.dumps({"speakers": source}))
    return folder


def beat(time_s: float, score: Score = SCORE) -> float:
    return time_s * score.tempo_bpm / 60
