"""The `stem` box of Native Instruments' Stems format: names and colours of the four stems, as JSON in moov/udta.

Decks that know the format (Traktor, Mixxx, djay, Serato's converters) find it there. `mastering_dsp` is required; here
its compressor and limiter are off, so that the stems sound as they are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw.audio.headers.mp4 import Box, boxes
from tsbs_daw.core.errors import OutputError, shown

MASTERING_DSP = {
    "compressor": {
        "enabled": False, "input_gain": 0.5, "output_gain": 0.5, "dry_wet": 50, "attack": 0.003, "release": 0.3,
        "ratio": 3, "hp_cutoff": 300, "threshold": 0,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}  # fmt: skip


def stem_json(stems: Sequence[tuple[str, str]]) -> bytes:
    """The box's body. stems: (name, "#rrggbb") in the order of the tracks"""
    entries = [{"name": name, "color": color.upper()} for name, color in stems]
    return json.dumps({"mastering_dsp": MASTERING_DSP, "version": 1, "stems": entries}).encode("ascii")


def add_stem_box(path: Path, stems: Sequence[tuple[str, str]]) -> None:
    """Put the box into a file whose index comes last, so that no sound moves. Raises: OutputError, OSError"""
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        top = list(boxes(file, 0, size))
        if not top or top[-1].name != b"moov" or top[-1].end != size:
            raise OutputError(f"{shown(path)} cannot become a Stems file: its index is not at its end.")
        moov = top[-1]
        children = list(boxes(file, moov.body, size))
        file.seek(moov.body)
        index = with_stems(file.read(size - moov.body), stem_json(stems), children, moov.body)
        file.seek(moov.body - 8)
        file.write(_box(b"moov", index))
        file.truncate()


def with_stems(moov: bytes, body: bytes, children: Sequence[Box], start: int) -> bytes:
    """The body of a `moov` with the box in its `udta`, which is made if there is none."""
    stem = _box(b"stem", body)
    udta = next((box for box in children if box.name == b"udta"), None)
    if udta is None:
        return moov + _box(b"udta", stem)
    inside = moov[udta.body - start : udta.end - start]
    return moov[: udta.body - 8 - start] + _box(b"udta", inside + stem) + moov[udta.end - start :]


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body
