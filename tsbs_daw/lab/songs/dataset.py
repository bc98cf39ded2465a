"""Data sets of songs in MUSDB18-HQ's layout.

<folder>/<split>/<song>/ has mixture.wav, vocals.wav, drums.wav, bass.wav, other.wav and song.json.

Splits are ranges of seeds and never meet:

    train 1000 .. 8999
    valid 9000 .. 9499
    test  9500 .. 9999
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import soundfile as sf

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.core.files import write_atomically
from tsbs_daw.lab.songs.casting import cast
from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE
from tsbs_daw.lab.songs.material import Material, open_material
from tsbs_daw.lab.songs.render import render
from tsbs_daw.lab.songs.score import NOTE_NAMES, STEMS, Score
from tsbs_daw.lab.songs.speakers import open_speakers
from tsbs_daw.lab.songs.voice_bank import open_bank

log = logging.getLogger(__name__)

ANALYSES = ".analyses"  # of recorded voices, in the data set's folder; may be deleted
SPLITS = {"train": range(1000, 9000), "valid": range(9000, 9500), "test": range(9500, 10000)}


def split_of(seed: int) -> str:
    """The split that a seed belongs to."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise UsageError(
        f"Seed {seed} belongs to no split; use one from 1000 to 9999 (train, valid and test have ranges of their own)."
    )


def render_dataset(
    folder: Path | str,
    songs: int,
    start_seed: int,
    seconds: float = 40.0,
    *,
    timbres: str = "builtin",
    material: Path | str | None = None,
    voices: Path | str | None = None,
    subtype: str = "PCM_16",
    progress=None,
) -> list[Path]:
    """Write `songs` songs with consecutive seeds; complete songs are not changed.

    Args:
        timbres: "builtin", "all" or "heldout" (see casting.py); the training split refuses held-out timbres.
        material: Folder of a material pack (see material.py), whose recordings play most parts.
        voices: Folder of a voice bank (see voice_bank.py) that sings most songs; a pack may contain one in voices/.
            Without a bank, the pack's speakers sing the songs' own melodies if pyworld is installed.
        subtype: "PCM_16" (the mixture is the exact integer sum of the stems) or "FLOAT".
        progress: Called with (done, total, song folder).

    Returns:
        The songs' folders.

    Raises:
        UsageError: The seeds cross the border of a split.
        OutputError: A file cannot be written.
    """
    if songs < 1 or seconds < 1:
        raise UsageError("A data set needs at least one song of at least one second.")
    split = split_of(start_seed)
    if timbres == "heldout" and split == "train":
        raise UsageError(
            "Held-out timbres are for testing; ask for them with seeds of the split valid or test (9000 to 9999)."
        )
    if split_of(start_seed + songs - 1) != split:
        raise UsageError(
            f"Seeds {start_seed} to {start_seed + songs - 1} cross the end of the split {split}; ask for fewer songs."
        )
    pack = open_material(Path(material)) if material is not None else None
    bank = _bank(material, voices)
    speakers = open_speakers(pack, Path(folder) / ANALYSES) if pack is not None and bank is None else None
    written = []
    for number in range(songs):
        seed = start_seed + number
        target = Path(folder) / split / f"song-{seed:06d}"
        if not (target / "song.json").exists():
            score = cast(compose(seed, seconds), timbres, pack, bank, speakers)
            write_song(target, score, render(score, pack, bank, speakers), subtype)
            log.info("Wrote song %s: %s in %s, %.1f BPM", seed, score.style, score.mode, score.tempo_bpm)
        written.append(target)
        if progress is not None:
            progress(number + 1, songs, target)
    return written


def _bank(material: Path | str | None, voices: Path | str | None) -> Material | None:
    """Return the requested voice bank, or that of the material pack."""
    folder = Path(voices) if voices is not None else Path(material) / "voices" if material is not None else None
    if folder is None or (voices is None and not (folder / "index.json").is_file()):
        return None
    return open_bank(open_material(folder, licensed=False))


def write_song(folder: Path, score: Score, stems: dict[str, np.ndarray], subtype: str = "PCM_16") -> None:
    """Write one song; song.json comes last and says that the song is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if subtype == "PCM_16":
            whole: dict[str, np.ndarray] = {name: np.round(stems[name] * 32767.0).astype(np.int16) for name in STEMS}
            total = sum(stem.astype(np.int32) for stem in whole.values())
            whole["mixture"] = np.clip(total, -32768, 32767).astype(np.int16)
        else:
            whole = {**stems, "mixture": np.asarray(sum(stems[name] for name in STEMS))}
        for name, audio in whole.items():
            sf.write(folder / f"{name}.wav", audio.T, SAMPLE_RATE, subtype=subtype)
        write_atomically(folder / "song.json", json.dumps(truth_of(score), indent=1))
    except (OSError, sf.LibsndfileError) as problem:
        raise OutputError(
            f"The song could not be written to {folder}: {problem}; free space or choose another folder."
        ) from problem


def truth_of(score: Score) -> dict:
    """What is known of a song: seed, key, tempo, beats, chords, sections and timbres; times in seconds."""
    beats = int(score.duration_s * score.tempo_bpm / 60.0)
    beat_s = 60.0 / score.tempo_bpm
    return {
        "schema": 1,
        "seed": score.seed,
        "sample_rate": SAMPLE_RATE,
        "duration_s": score.duration_s,
        "style": score.style,
        "key": f"{NOTE_NAMES[score.tonic]} {score.mode}",
        "tonic": score.tonic,
        "mode": score.mode,
        "tempo_bpm": score.tempo_bpm,
        "meter": score.meter,
        "swing": score.swing,
        "beats_s": [round(number * beat_s, 6) for number in range(beats + 1)],
        "downbeats_s": [round(number * beat_s, 6) for number in range(0, beats + 1, score.bar_beats)],
        "chords": [
            {
                "start_s": round(chord.beat * beat_s, 6),
                "end_s": round((chord.beat + chord.beats) * beat_s, 6),
                "name": chord.name,
            }
            for chord in score.chords
        ],
        "sections": [
            {
                "name": section.name,
                "start_s": round(section.bar * score.bar_beats * beat_s, 6),
                "bars": section.bars,
                "playing": sorted(section.playing),
            }
            for section in score.sections
        ],
        "parts": [
            {"name": part.name, "stem": part.stem, "events": len(part.events), **part.timbre}
            for part in score.parts
            if part.events
        ],
    }
