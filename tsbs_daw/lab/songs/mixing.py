"""Mixing: a channel strip per part, and one bus gain for all stems, so that the mixture is exactly their sum."""

from __future__ import annotations

import numpy as np
from pedalboard import (
    Bitcrush,
    Chorus,
    Compressor,
    Delay,
    Distortion,
    HighpassFilter,
    HighShelfFilter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Pedalboard,
    Phaser,
    Reverb,
)

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, gain

CEILING = 0.97
SILENT_LUFS = -70.0
MOST_LIFT_DB = 45.0


def _u(rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def process(signal: np.ndarray, chain: list) -> np.ndarray:
    """(channels, samples) through a pedalboard chain, cut to the same length."""
    return Pedalboard(chain)(signal, SAMPLE_RATE)[:, : signal.shape[1]] if chain else signal


def loudness_lufs(signal: np.ndarray) -> float:
    """Loudness over the sounding parts, close to BS.1770: K-weighting as two shelving filters and an absolute gate."""
    weighted = process(signal, [HighShelfFilter(1500, 4.0, 0.707), HighpassFilter(38), HighpassFilter(38)])
    block = int(0.4 * SAMPLE_RATE)
    count = max(weighted.shape[1] // block, 1)
    power = np.mean(weighted[:, : count * block].reshape(2, count, -1).astype(np.float64) ** 2, axis=2).sum(axis=0)
    level = -0.691 + 10 * np.log10(power + 1e-12)
    sounding = power[level > SILENT_LUFS]
    if not len(sounding):
        return SILENT_LUFS
    relative = -0.691 + 10 * np.log10(sounding.mean()) - 10
    return float(-0.691 + 10 * np.log10(power[level > max(SILENT_LUFS, relative)].mean()))


def level_to(signal: np.ndarray, target_lufs: float) -> np.ndarray:
    """Scale a signal to a loudness. Silent and nearly silent signals are not amplified."""
    measured = loudness_lufs(signal)
    if measured <= SILENT_LUFS + 1:
        return signal
    return signal * np.float32(gain(min(target_lufs - measured, MOST_LIFT_DB)))


def rms_to(signal: np.ndarray, target_db: float) -> np.ndarray:
    """Scale a signal so that its sounding parts have an RMS level: cruder than `level_to` and eight times as fast."""
    block = SAMPLE_RATE // 5
    count = max(signal.shape[-1] // block, 1)
    blocks = signal[:, : count * block].reshape(len(signal), count, -1)
    power = np.einsum("cbs,cbs->b", blocks, blocks) / (blocks.shape[0] * blocks.shape[2])
    sounding = power[power > max(1e-8, 0.03 * float(power.max()))]
    if not len(sounding):
        return signal
    return signal * np.float32(gain(min(target_db - 10 * np.log10(float(sounding.mean())), MOST_LIFT_DB)))


def pan_and_width(signal: np.ndarray, pan: float, width: float) -> np.ndarray:
    """Balance -1..1 and a side level where 0 is mono."""
    middle, side = 0.5 * (signal[0] + signal[1]), 0.5 * width * (signal[0] - signal[1])
    left, right = np.sqrt(1.0 - pan), np.sqrt(1.0 + pan)
    return np.stack([(middle + side) * left, (middle - side) * right]).astype(np.float32)


def _room(rng, wet: float) -> Reverb:
    return Reverb(_u(rng, 0.1, 0.9), _u(rng, 0.2, 0.8), wet, 1.0 - 0.5 * wet, _u(rng, 0.6, 1.0))


def _equaliser(rng, most_db: float) -> list:
    return [
        LowShelfFilter(_u(rng, 80, 250), rng.normal(0, most_db * 0.5)),
        PeakFilter(
            float(np.exp(rng.uniform(np.log(200), np.log(5000)))),
            float(np.clip(rng.normal(0, most_db * 0.6), -8, 8)),
            _u(rng, 0.5, 1.8),
        ),
        HighShelfFilter(_u(rng, 3000, 8000), float(np.clip(rng.normal(1.5, most_db * 0.6), -8, 8))),
    ]


def strip_other(family: str, figure: str, rng: np.random.Generator) -> list:
    """Effects of an accompanying part, as its kind of instrument is usually recorded."""
    chain: list = []
    if family in ("distorted", "overdrive"):
        drive = _u(rng, 22, 38) if family == "distorted" else _u(rng, 10, 22)
        chain += [
            HighpassFilter(90),
            PeakFilter(900, 4, 0.7),
            Distortion(drive),
            HighpassFilter(80),
            LowpassFilter(_u(rng, 4200, 6500)),
            LowpassFilter(_u(rng, 4800, 7500)),
            PeakFilter(_u(rng, 1800, 3200), _u(rng, 0, 5), 1.0),
        ]
    if family in ("clean", "epiano", "organ", "warm", "strings", "supersaw", "fm") and rng.random() < 0.5:
        chain.append(
            Chorus(
                _u(rng, 0.3, 2.0) if family != "organ" else _u(rng, 0.7, 6.0),
                _u(rng, 0.1, 0.35),
                _u(rng, 5, 12),
                0.0,
                _u(rng, 0.2, 0.5),
            )
        )
    if family in ("clean", "epiano", "clav", "warm") and rng.random() < 0.2:
        chain.append(Phaser(_u(rng, 0.2, 1.5), _u(rng, 0.3, 0.8), _u(rng, 600, 1800), 0.2, 0.4))
    if rng.random() < 0.06:
        chain.append(Bitcrush(_u(rng, 7, 10)))
    chain += [HighpassFilter(_u(rng, 60, 220)), *_equaliser(rng, 4.0)]
    if rng.random() < 0.5:
        chain.append(Compressor(_u(rng, -30, -16), _u(rng, 1.5, 4), _u(rng, 5, 30), _u(rng, 60, 250)))
    if figure in ("riff", "arpeggio", "stabs") and rng.random() < 0.4:
        chain.append(Delay(_u(rng, 0.15, 0.5), _u(rng, 0.1, 0.45), _u(rng, 0.1, 0.3)))
    chain.append(_room(rng, _u(rng, 0.02, 0.4)))
    return chain


def strip_bass(family: str, rng: np.random.Generator) -> list:
    """The channel strip of a bass."""
    chain: list = [HighpassFilter(30)]
    if family in ("drive", "reese") or rng.random() < 0.25:
        chain += [
            Distortion(_u(rng, 8, 20) if family == "drive" else _u(rng, 3, 12)),
            LowpassFilter(_u(rng, 2500, 6000)),
        ]
    chain += [
        PeakFilter(_u(rng, 60, 120), rng.normal(0, 2), 0.8),
        PeakFilter(_u(rng, 500, 1200), rng.normal(0, 3), 0.8),
        HighShelfFilter(2500, rng.normal(0, 3)),
    ]
    chain.append(Compressor(_u(rng, -28, -18), _u(rng, 2.5, 6), _u(rng, 5, 30), _u(rng, 60, 200)))
    if rng.random() < 0.12:
        chain.append(Chorus(_u(rng, 0.3, 1.2), 0.2, 8, 0.0, 0.25))
    if rng.random() < 0.15:
        chain.append(_room(rng, _u(rng, 0.02, 0.08)))
    return chain


def strip_vocal(role: str, rng: np.random.Generator) -> list:
    """Return the channel strip of a voice. `role` is "lead", or that of a voice around it."""
    chain: list = [HighpassFilter(_u(rng, 70, 130)), *_equaliser(rng, 3.0)]
    chain.append(Compressor(_u(rng, -32, -20), _u(rng, 2.5, 6), _u(rng, 2, 12), _u(rng, 60, 180)))
    chain.append(HighShelfFilter(_u(rng, 5000, 9000), _u(rng, -1, 5)))
    if rng.random() < 0.12:
        chain.append(Distortion(_u(rng, 4, 14)))
    if role != "lead" and rng.random() < 0.4:
        chain.append(Chorus(_u(rng, 0.4, 1.2), 0.15, 8, 0.0, 0.4))
    return chain


def send_vocal(rng: np.random.Generator, beat_s: float) -> list:
    """Space around all voices of a song together."""
    chain: list = []
    if rng.random() < 0.4:
        chain.append(
            Delay(min(beat_s * float(rng.choice([0.5, 0.75, 1.0])), 1.0), _u(rng, 0.1, 0.4), _u(rng, 0.06, 0.22))
        )
    chain.append(_room(rng, _u(rng, 0.02, 0.3)))
    return chain


def mix_drums(groups: dict[str, np.ndarray], kit: str, rng: np.random.Generator) -> np.ndarray:
    """Kick, snare and tops through their own strips, a room and a bus compressor."""
    roomy = {"room": 0.3, "gated": 0.25, "jazz": 0.15, "dusty": 0.1}.get(kit, 0.06) * _u(rng, 0.3, 1.6)
    kick = process(
        groups["kick"],
        [
            LowShelfFilter(70, rng.normal(1, 2)),
            PeakFilter(350, _u(rng, -6, 0), 0.9),
            Compressor(-16, _u(rng, 1.5, 4), 12, 90),
        ],
    )
    snare = process(
        groups["snare"],
        [
            PeakFilter(200, rng.normal(0, 2), 0.9),
            HighShelfFilter(5000, rng.normal(0, 2.5)),
            Compressor(-18, _u(rng, 1.5, 4), 8, 90),
        ],
    )
    snare = process(snare, [_room(rng, min(roomy * 1.5, 0.45))])
    top = process(groups["top"], [HighpassFilter(_u(rng, 60, 120)), HighShelfFilter(7000, rng.normal(0, 3))])
    bus = kick * gain(rng.normal(0, 1.5)) + snare * gain(rng.normal(0, 1.5)) + top * gain(rng.normal(0, 2.5))
    chain: list = [_room(rng, min(roomy, 0.35))] if rng.random() < 0.8 else []
    chain.append(Compressor(_u(rng, -22, -10), _u(rng, 1.5, 5), _u(rng, 3, 30), _u(rng, 50, 200)))
    if rng.random() < 0.3:
        chain.append(Distortion(_u(rng, 1, 8)))
    if kit == "dusty":
        chain += [Bitcrush(_u(rng, 9, 12)), LowpassFilter(_u(rng, 6000, 12000))]
    return process(bus.astype(np.float32), chain)


def strip_loop(rng: np.random.Generator) -> list:
    """The channel strip of a drum loop, from as it is to a telephone's."""
    chain: list = _equaliser(rng, 4.0) if rng.random() < 0.6 else []
    if rng.random() < 0.25:
        chain.append(HighpassFilter(_u(rng, 150, 700)))
    if rng.random() < 0.2:
        chain.append(LowpassFilter(_u(rng, 2500, 9000)))
    if rng.random() < 0.3:
        chain.append(Bitcrush(_u(rng, 8, 12)))
    if rng.random() < 0.4:
        chain.append(Compressor(_u(rng, -28, -14), _u(rng, 2, 6), _u(rng, 1, 20), _u(rng, 60, 200)))
    if rng.random() < 0.3:
        chain.append(_room(rng, _u(rng, 0.03, 0.3)))
    return chain


def bus_gain(signals: list[np.ndarray], ceiling: float = CEILING, release_s: float = 0.08) -> np.ndarray:
    """The gain curve (samples,) of a look-ahead limiter: no |signal| * gain exceeds the ceiling.

    It is applied to every stem alike, so that the mixture stays the sum of its stems.
    """
    block = 64
    samples = signals[0].shape[1]
    peak = np.max([np.max(np.abs(signal), axis=0) for signal in signals], axis=0)
    padded = np.pad(peak, (0, -samples % block)).reshape(-1, block).max(axis=1)
    wanted = np.minimum(1.0, ceiling / np.maximum(padded, 1e-9))
    reach = max(int(release_s * SAMPLE_RATE / block), 2)
    held = np.lib.stride_tricks.sliding_window_view(np.pad(wanted, reach, mode="edge"), 2 * reach + 1).min(axis=1)
    kernel = np.hanning(2 * reach - 1)
    smooth = np.convolve(np.pad(held, reach - 1, mode="edge"), kernel / kernel.sum(), mode="valid")
    # A block's neighbours are within the held minimum: interpolating between block centres stays below the ceiling.
    return np.interp(np.arange(samples), np.arange(len(smooth)) * block + block / 2, smooth).astype(np.float32)
