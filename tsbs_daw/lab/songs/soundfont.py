"""General MIDI sound fonts played by FluidSynth: an optional back end.

    name        file                    Debian package                      licence                   used for
    fluid       FluidR3_GM.sf2          fluid-soundfont-gm                  MIT                       training
    musescore   MuseScore_General.sf3   musescore-general-soundfont-small   MIT, parts CC0 and PD     training
    csound      sf_GMbank.sf2           csound-soundfont                    public domain             training
    timgm       TimGM6mb.sf2            timgm6mb-soundfont                  GPL-2                     held out

`TSBS_DAW_SOUNDFONTS` names one more folder to look in. The command-line program is used, not a binding: it renders
offline, faster than real time, gives the same samples every time, and a crash stays outside.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE
from tsbs_daw.lab.songs.kits import group_of
from tsbs_daw.lab.songs.score import Part, Score

FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)
DRUM_CHANNEL = 9
TICKS_PER_S = 10_000  # of the MIDI files given to FluidSynth
HIT_S = 0.3  # a drum rings out by itself; the key is only held long enough to start it


@dataclass(frozen=True)
class Font:
    """A sound font that may be installed."""

    name: str
    file: str
    kits: tuple[int, ...]  # programs of its drum kits
    held_out: bool = False


_GS_KITS = (0, 8, 16, 24, 25, 32, 40)
_MANY_KITS = (*range(20), 24, 25, *range(32, 37), 40, 41, 42)
FONTS = {
    font.name: font
    for font in (
        Font("fluid", "FluidR3_GM.sf2", _MANY_KITS),
        Font("musescore", "MuseScore_General.sf3", _MANY_KITS),
        Font("csound", "sf_GMbank.sf2", _GS_KITS),
        Font("timgm", "TimGM6mb.sf2", _GS_KITS, held_out=True),
    )
}


def find_font(name: str) -> Path | None:
    """Return a font's file, or None if it is not installed."""
    folders = (os.environ.get("TSBS_DAW_SOUNDFONTS", ""), *FOLDERS)
    for folder in folders:
        path = Path(folder) / FONTS[name].file
        if folder and path.is_file():
            return path
    return None


def available_fonts(*, held_out: bool) -> list[str]:
    """Names of the installed fonts of one side of the split, if FluidSynth is there too."""
    if shutil.which("fluidsynth") is None:
        return []
    return [name for name, font in FONTS.items() if font.held_out == held_out and find_font(name) is not None]


def require_fonts(*, held_out: bool) -> list[str]:
    """As `available_fonts`, but a missing program or font is an error that says what to install."""
    if shutil.which("fluidsynth") is None:
        raise UsageError("FluidSynth is not installed; install it (Debian: fluidsynth) or use --timbres builtin.")
    names = available_fonts(held_out=held_out)
    if not names:
        wanted = ", ".join(font.file for font in FONTS.values() if font.held_out == held_out)
        raise UsageError(
            f"No sound font was found (looked for {wanted}); install one, or name its folder in TSBS_DAW_SOUNDFONTS."
        )
    return names


def play_font(
    notes: list[tuple[float, float, int, int]], font: str, program: int, samples: int, *, drums: bool = False
) -> np.ndarray:
    """Render notes (start_s, end_s, key, velocity) dry: (2, samples) float32, 44.1 kHz.

    Raises:
        UsageError: The font is not installed.
        OutputError: FluidSynth failed.
    """
    path = find_font(font)
    if path is None:
        raise UsageError(f"The sound font {FONTS[font].file} is not installed; install it or use --timbres builtin.")
    if not notes:
        return np.zeros((2, samples), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-") as folder:
        score, audio_file = Path(folder) / "part.mid", Path(folder) / "part.wav"
        write_midi(score, notes, program=program, channel=DRUM_CHANNEL if drums else 0, end_s=samples / SAMPLE_RATE)
        _run(path, score, audio_file)
        audio, _ = sf.read(audio_file, dtype="float32", always_2d=True)
    output = np.zeros((2, samples), dtype=np.float32)
    length = min(samples, len(audio))
    output[:, :length] = audio.T[:, :length]
    return output


def _variable_length(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | (value & 0x7F))
    return bytes(reversed(digits))


def write_midi(
    path: Path,
    notes: list[tuple[float, float, int, int]],
    *,
    program: int,
    bank: int = 0,
    channel: int = 0,
    end_s: float,
) -> None:
    """Write notes (start_s, end_s, key 0..127, velocity 1..127) as a format 0 file that lasts `end_s`."""
    messages: list[tuple[int, int, bytes]] = []
    for start_s, stop_s, key, velocity in notes:
        start, stop = round(start_s * TICKS_PER_S), round(stop_s * TICKS_PER_S)
        messages.append((start, 1, bytes((0x90 | channel, key, velocity))))
        messages.append((max(stop, start + 1), 0, bytes((0x80 | channel, key, 0))))
    messages.sort()
    track = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")  # a quarter note lasts one second
    track += bytes((0, 0xB0 | channel, 0, bank, 0, 0xC0 | channel, program))
    now = 0
    for tick, _, message in messages:
        track += _variable_length(tick - now) + message
        now = tick
    track += _variable_length(max(round(end_s * TICKS_PER_S) - now, 0)) + b"\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_S)
    path.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)


def _run(font: Path, score: Path, audio_file: Path) -> None:
    command = [
        "fluidsynth", "-ni", "-q", "-r", str(SAMPLE_RATE), "-g", "0.4", "-R", "0", "-C", "0", "-O", "float",
        "-T", "wav", "-o", "synth.dynamic-sample-loading=1", "-F", str(audio_file), str(font), str(score),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise OutputError(f"FluidSynth did not finish playing {font}: {problem}; check its installation.") from problem
    if done.returncode != 0 or not audio_file.exists():
        raise OutputError(f"FluidSynth could not play {font}: {done.stderr.strip()[-300:]}; check the sound font.")


# Pieces of a kit on General MIDI's drum keys; several keys are alternatives, drawn once per song.
DRUM_KEYS = {
    "kick": (36, 35),
    "snare": (38, 40),
    "clap": (39,),
    "rim": (37,),
    "hat": (42, 42, 44),
    "open": (46,),
    "ride": (51, 59, 53),
    "crash": (49, 57),
    "tom_high": (50, 48),
    "tom": (47, 45),
    "tom_low": (43, 41),
    "tambourine": (54,),
    "cowbell": (56,),
    "conga": (63, 64),
    "bongo": (60, 61),
    "clave": (75,),
    "shaker": (70, 82),
    "snap": (39,),
    "brush": (38, 40),
}

# Programs (counted from 0) that can stand in for a family of built-in timbres. Voices and sound effects are left out:
# a sampled choir in "other" would teach a separator the wrong thing.
PROGRAMS = {
    "piano": (0, 1, 2, 3),
    "epiano": (4, 5),
    "clav": (7, 6),
    "organ": (16, 17, 18, 19),
    "accordion": (21, 23),
    "harmonica": (22,),
    "nylon": (24,),
    "steel": (25,),
    "clean": (26, 27, 28),
    "overdrive": (29, 27),
    "distorted": (30, 27),
    "strings": (48, 49, 44, 50, 51),
    "fiddle": (40, 41, 110),
    "harp": (46,),
    "brass": (61, 56, 57, 60, 62, 63, 59),
    "sax": (64, 65, 66, 67),
    "clarinet": (71, 68, 69, 70),
    "flute": (73, 74, 75, 72),
    "whistle": (78, 79, 74),
    "bell": (9, 10, 14, 98, 112),
    "vibes": (11,),
    "marimba": (12, 13),
    "kalimba": (108, 10),
    "pluck": (45, 15, 104, 105, 106, 107),
    "saw": (81, 87, 90),
    "square": (80, 82),
    "pulse": (80, 84),
    "supersaw": (90, 81, 50),
    "warm": (89, 92, 94, 95),
    "fm": (5, 88, 96, 98, 102),
    "finger": (33, 35),
    "pick": (34,),
    "slap": (36, 37),
    "upright": (32,),
    "drive": (34,),
    "sub": (38, 39),
    "808": (38, 39),
    "reese": (39, 38, 87),
    "bass synth": (38, 39),
}


@cache
def any_program() -> tuple[int, ...]:
    """Every program but those of basses."""
    return tuple(
        sorted({program for family, programs in PROGRAMS.items() for program in programs if not 32 <= program <= 39})
    )


def _strength(velocity: float) -> int:
    return int(np.clip(round(24 + 103 * velocity), 1, 127))


def play_font_part(part: Part, score: Score, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A pitched part on the font and program of its timbre: (2, samples) float32."""
    notes = []
    for note in part.events:
        start_s = max(score.seconds(note.beat) + float(rng.normal(0.0, 0.004)), 0.0)
        end_s = max(score.seconds(note.beat + note.beats), start_s + 0.04)
        if start_s < score.duration_s and 0 <= round(note.pitch) <= 127:
            notes.append((start_s, end_s, round(note.pitch), _strength(note.velocity)))
    return play_font(notes, part.timbre["font"], part.timbre["program"], samples)


def play_font_kit(part: Part, score: Score, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A drum part on a font's kit, one (2, samples) signal per mixing group."""
    keys = {piece: int(choices[int(rng.integers(len(choices)))]) for piece, choices in DRUM_KEYS.items()}
    notes: dict[str, list] = {"kick": [], "snare": [], "top": []}
    for hit in part.events:
        start_s = score.seconds(hit.beat) + abs(float(rng.normal(0.0, 0.003)))
        if start_s < score.duration_s:
            notes[group_of(hit.piece)].append((start_s, start_s + HIT_S, keys[hit.piece], _strength(hit.velocity)))
    font, program = part.timbre["font"], part.timbre["program"]
    return {name: play_font(events, font, program, samples, drums=True) for name, events in notes.items()}
