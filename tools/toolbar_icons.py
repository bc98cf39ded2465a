"""Draws the icons of REAPER's toolbar buttons: a strip of three states, side by side, for each of three scales.

    python tools/toolbar_icons.py

REAPER takes such a strip from Data/toolbar_icons: normal, under the mouse, and lit. The ones of 150 % and 200 % lie in
folders of these names. A picture is a list of rectangles in a square of 30 units.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "reaper_scripts" / "TSBS-DAW" / "toolbar_icons"
UNITS = 30
SCALES = {"": 1.0, "150": 1.5, "200": 2.0}
FINER = 4  # each pixel is the mean of so many by so many

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float, Color]  # left, top, right, bottom

VOICE, DRUMS, BASS, OTHER = (233, 92, 130), (240, 170, 60), (90, 180, 110), (80, 150, 220)
GREY, LIGHT = (150, 150, 148), (222, 222, 218)
STEMS = (VOICE, DRUMS, BASS, OTHER)
# Behind the picture, in the three states, with how opaque it is.
BACKGROUNDS: tuple[tuple[Color, float], ...] = (((0, 0, 0), 0.0), (LIGHT, 0.22), ((51, 140, 153), 0.75))


def _separate() -> list[Rectangle]:
    """One bar that becomes four."""
    bars = [(16.0, 5.0 + 5.5 * row, 26.0, 8.5 + 5.5 * row, color) for row, color in enumerate(STEMS)]
    return [(4.0, 11.0, 11.0, 19.0, LIGHT), (12.5, 6.0, 14.0, 24.0, GREY), *bars]


def _choose() -> list[Rectangle]:
    """Faders at four heights."""
    found: list[Rectangle] = []
    for column, (color, height) in enumerate(zip(STEMS, (8.0, 16.0, 12.0, 19.0), strict=True)):
        left = 4.0 + 6.0 * column
        found += [(left + 1.5, 5.0, left + 2.5, 25.0, GREY), (left, height, left + 4.0, height + 3.5, color)]
    return found


def _jobs() -> list[Rectangle]:
    """Bars of progress."""
    found: list[Rectangle] = []
    for row, (color, share) in enumerate(zip((OTHER, BASS, DRUMS), (1.0, 0.6, 0.25), strict=True)):
        top = 6.0 + 6.5 * row
        found += [(4.0, top, 26.0, top + 4.0, GREY), (4.0, top, 4.0 + 22.0 * share, top + 4.0, color)]
    return found


def _again() -> list[Rectangle]:
    """Two stems in the place of two."""
    return [
        (4.0, 7.0, 12.0, 11.0, GREY), (4.0, 19.0, 12.0, 23.0, GREY), (14.0, 13.5, 16.0, 16.5, LIGHT),
        (18.0, 7.0, 26.0, 11.0, VOICE), (18.0, 19.0, 26.0, 23.0, OTHER),
    ]  # fmt: skip


PICTURES = {
    "tsbs-daw_separate": _separate(),
    "tsbs-daw_separate_with_preset": _choose(),
    "tsbs-daw_jobs": _jobs(),
    "tsbs-daw_re-separate": _again(),
}


def strip(picture: list[Rectangle], scale: float) -> np.ndarray:
    """Draw one picture in its three states.

    Shape: returns (30 * scale, 90 * scale, 4), uint8, with straight alpha
    """
    side = round(UNITS * scale)
    fine = side * FINER
    states = []
    for color, opacity in BACKGROUNDS:
        drawn = np.zeros((fine, fine, 4))  # premultiplied
        drawn[...] = [*(channel * opacity for channel in color), 255 * opacity]
        for left, top, right, bottom, fill in picture:
            across = slice(round(left * fine / UNITS), round(right * fine / UNITS))
            drawn[round(top * fine / UNITS) : round(bottom * fine / UNITS), across] = [*fill, 255]
        states.append(drawn.reshape(side, FINER, side, FINER, 4).mean(axis=(1, 3)))
    pixels = np.concatenate(states, axis=1)
    alpha = np.maximum(pixels[..., 3:], 1e-9)
    pixels[..., :3] = pixels[..., :3] * 255 / alpha
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, 4) as a PNG file."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def main() -> None:
    for folder, scale in SCALES.items():
        (FOLDER / folder).mkdir(parents=True, exist_ok=True)
        for name, picture in PICTURES.items():
            (FOLDER / folder / f"{name}.png").write_bytes(png(strip(picture, scale)))


if __name__ == "__main__":
    main()
