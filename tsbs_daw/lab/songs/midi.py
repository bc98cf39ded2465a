"""Standard MIDI files, as small as a synthesiser needs them: one track, one channel, times in seconds."""

from __future__ import annotations

import struct
from pathlib import Path

TICKS_PER_S = 10_000


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
