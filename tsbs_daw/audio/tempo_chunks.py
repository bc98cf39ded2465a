"""Chunks of a WAV that tell a DAW or a sampler its tempo, key and loop.

`acid`, 24 bytes, as ACID wrote it and FL Studio, REAPER, Cubase and others read it:

    flags u32 | root note u16 | 0x8000 u16 | 0.0 f32 | beats u32 | meter denominator u16, numerator u16 | tempo f32

    flags: 1 one-shot, 2 root note is valid, 4 stretch with the tempo, 8 read from disk (long files)

`smpl`, 36 + 24 bytes (RIFF MCI 1.0, "Sampler"): the note that the sound is, and one forward loop over all of it.
"""

from __future__ import annotations

import struct

ROOT_IS_VALID, STRETCH, ON_DISK = 2, 4, 8
PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MIDDLE_C = 60


def pitch_class(key: str | None) -> int | None:
    """0 for C to 11 for B, from "A minor", "Bbm", "F# major", ...; None where there is no note to be seen."""
    if not key or key[0].upper() not in PITCH_CLASSES:
        return None
    accidental = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(key[1:2], 0)
    return (PITCH_CLASSES[key[0].upper()] + accidental) % 12


def acid_body(tempo_bpm: float, beats: int, *, key: str | None = None, beats_per_bar: int = 4, loop: bool) -> bytes:
    """The `acid` chunk's body.

    Args: beats: that the file holds; loop: a loop, else a whole song's part, to be read from disk
    """
    root = pitch_class(key)
    flags = STRETCH | (0 if loop else ON_DISK) | (0 if root is None else ROOT_IS_VALID)
    note = MIDDLE_C if root is None else MIDDLE_C + root
    return struct.pack("<IHHfIHHf", flags, note, 0x8000, 0.0, beats, 4, beats_per_bar, tempo_bpm)


def smpl_body(samples: int, sample_rate: int, *, key: str | None = None) -> bytes:
    """The `smpl` chunk's body: all `samples` are one forward loop, played for ever."""
    note = MIDDLE_C + (pitch_class(key) or 0)
    head = struct.pack("<9I", 0, 0, round(1e9 / sample_rate), note, 0, 0, 0, 1, 0)
    return head + struct.pack("<6I", 0, 0, 0, max(samples - 1, 0), 0, 0)


def beats_in(samples: int, sample_rate: int, tempo_bpm: float) -> int:
    """The nearest whole number of beats."""
    return round(samples / sample_rate * tempo_bpm / 60)
