from __future__ import annotations

import pytest

from tsbs_daw.audio.headers.mpeg import parse_frame


@pytest.mark.parametrize(
    ("head", "layer", "rate", "length", "samples", "mono"),
    [
        ("fffb9064", 3, 44100, 417, 1152, False),  # 128 kbit/s: 144 * 128000 / 44100 = 417.96
        ("fffb9264", 3, 44100, 418, 1152, False),  # the same, padded
        ("fffbe4c4", 3, 48000, 960, 1152, True),  # 320 kbit/s: 144 * 320000 / 48000
        ("fff380c4", 3, 22050, 208, 576, True),  # MPEG-2, 64 kbit/s: 72 * 64000 / 22050 = 208.98
        ("ffe318c4", 3, 8000, 72, 576, True),  # MPEG-2.5, 8 kbit/s
        ("fffda000", 2, 44100, 626, 1152, False),  # layer II, 192 kbit/s: 144 * 192000 / 44100 = 626.9
        ("ffff4000", 1, 44100, 136, 384, False),  # layer I, 128 kbit/s: 4 * (12 * 128000 / 44100 = 34.8)
    ],
)
def test_a_frame_has_the_length_that_the_standard_gives_it(head, layer, rate, length, samples, mono):
    frame = parse_frame(bytes.fromhex(head))
    assert (frame.kind[1], frame.rate_hz, frame.channels) == (layer, rate, 1 if mono else 2)
    assert (frame.bytes, frame.samples) == (length, samples)


@pytest.mark.parametrize("head", ["fffb", "fe000000", "ffeb9064", "fff99064", "fffb9c64", "fffbf064"])
def test_reserved_values_start_no_frame(head):
    """Too short; no sync; reserved version, layer, sample rate, bit rate."""
    assert parse_frame(bytes.fromhex(head)) is None
