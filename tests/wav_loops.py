"""What libsndfile, which knows nothing of this package, reads from a WAV's `acid` and `smpl` chunks."""

from __future__ import annotations

import struct
from pathlib import Path

import soundfile
from soundfile import _ffi, _snd

GET_INSTRUMENT, GET_LOOP_INFO = 0x10D0, 0x10E0  # SFC_GET_INSTRUMENT, SFC_GET_LOOP_INFO
LOOP_FORWARD = 801


def _asked(path: Path, command: int, size: int) -> bytes | None:
    with soundfile.SoundFile(str(path)) as file:
        answer = _ffi.new("char[]", size)
        return bytes(_ffi.buffer(answer, size)) if _snd.sf_command(file._file, command, answer, size) else None


def acid_of(path: Path) -> dict | None:
    """SF_LOOP_INFO: time_sig_num, time_sig_den (short), loop_mode, num_beats, bpm (float), root_key, future[6]."""
    found = _asked(path, GET_LOOP_INFO, 44)
    if found is None:
        return None
    above, below, mode, beats, bpm, root = struct.unpack_from("<hhiifi", found)
    return {"bpm": bpm, "beats": beats, "loop": mode == LOOP_FORWARD, "root": root, "meter": (above, below)}


def instrument_of(path: Path) -> dict | None:
    """SF_INSTRUMENT: gain, basenote, detune, velocity lo/hi, key lo/hi, loop_count, 16 loops of mode, start, end,
    count."""
    found = _asked(path, GET_INSTRUMENT, 16 + 16 * 16)
    if found is None:
        return None
    count = struct.unpack_from("<i", found, 12)[0]
    loops = [struct.unpack_from("<iIII", found, 16 + 16 * place) for place in range(count)]
    return {"note": found[4], "loops": [(start, end) for _, start, end, _ in loops]}
