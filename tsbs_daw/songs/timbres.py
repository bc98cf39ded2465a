"""Built-in pitched timbres: families of parameters, drawn anew for every part of every song.

Five kinds of spectrum that evolve over a note:
    subtractive   a classic waveform through a filter with an envelope
    struck        plucked and hammered strings: every harmonic decays at its own rate
    blown         bowed and blown: brightness follows the attack, with vibrato and breath
    fm            one operator modulating another
    modal         inharmonic bars, bells and tines
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timbre:
    family: str
    kind: str
    attack_s: float = 0.004
    decay_s: float = 1.0
    sustain: float = 0.7
    release_s: float = 0.12
    wave: str = "saw"
    pulse_width: float = 0.5
    cutoff_hz: float = 2000.0  # at middle C
    resonance: float = 0.8
    slopes: int = 2  # second-order sections of the filter
    sweep: float = 2.0  # how many times the cutoff the filter opens at the attack
    sweep_s: float = 0.3
    tilt: float = 1.0  # harmonic k has amplitude k ** -tilt
    strike: float = 0.2  # where the string is plucked, as a part of its length
    ring_s: float = 2.0
    damp_hz: float = 2500.0
    body: tuple[tuple[float, float, float], ...] = ()  # (frequency_hz, width_hz, gain) of resonances
    harmonics: tuple[float, ...] = ()  # fixed drawbars
    ratios: tuple[float, ...] = ()
    ratio: float = 1.0
    fm_index: float = 2.0
    unison: int = 1
    detune_cents: float = 0.0
    spread: float = 0.0  # 0 mono .. 1 wide
    vibrato_hz: float = 0.0
    vibrato_cents: float = 0.0
    noise: float = 0.0
    noise_hz: tuple[float, float] = (1000.0, 6000.0)
    noise_s: float = 0.02  # 0 = as long as the note
    octaves: tuple[int, ...] = (0,)
    transpose: int = 0


def _body(rng: np.random.Generator, count: int, low_hz: float, high_hz: float, most: float):
    return tuple(
        (
            float(np.exp(rng.uniform(np.log(low_hz), np.log(high_hz)))),
            float(rng.uniform(60, 500)),
            float(rng.uniform(0.4, most)),
        )
        for _ in range(count)
    )


def random_timbre(family: str, rng: np.random.Generator) -> Timbre:
    """Draw one timbre of a family; families are named in FAMILIES."""
    return FAMILIES[family](family, rng)


def _u(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _synth(family: str, rng) -> Timbre:
    wave = {"square": "square", "pulse": "pulse"}.get(family, "saw")
    unison = int(rng.choice([1, 1, 2, 3])) if family != "supersaw" else int(rng.choice([5, 7]))
    plucky = rng.random() < 0.5 and family != "supersaw"
    return Timbre(
        family, "subtractive", _log(rng, 0.002, 0.02), _log(rng, 0.1, 0.6), _u(rng, 0.1, 0.4) if plucky else _u(rng, 0.6, 1.0),
        _log(rng, 0.04, 0.4), wave, _u(rng, 0.1, 0.45), _log(rng, 500, 6000), _u(rng, 0.6, 3.5), int(rng.choice([1, 2])),
        _u(rng, 0.0, 6.0), _log(rng, 0.05, 0.8), unison=unison, detune_cents=_u(rng, 3, 22), spread=_u(rng, 0.2, 1.0),
        vibrato_hz=_u(rng, 4, 6), vibrato_cents=_u(rng, 0, 8), octaves=(0,) if rng.random() < 0.7 else (0, -12),
    )  # fmt: skip


def _warm(family: str, rng) -> Timbre:
    return Timbre(
        family, "subtractive", _log(rng, 0.05, 0.6), 2.0, _u(rng, 0.7, 1.0), _log(rng, 0.3, 1.5),
        str(rng.choice(["saw", "pulse", "square"])), _u(rng, 0.2, 0.5), _log(rng, 350, 2200), _u(rng, 0.6, 1.6), 2,
        _u(rng, -0.4, 1.5), _log(rng, 0.4, 2.0), unison=int(rng.choice([2, 3, 4])), detune_cents=_u(rng, 5, 18), spread=_u(rng, 0.4, 1.0),
        noise=_u(rng, 0.0, 0.03), noise_s=0.0,
    )  # fmt: skip


def _pluck(family: str, rng) -> Timbre:
    return Timbre(
        family, "subtractive", 0.002, _log(rng, 0.08, 0.4), _u(rng, 0.0, 0.1), _log(rng, 0.08, 0.5), str(rng.choice(["saw", "square", "triangle"])),
        0.5, _log(rng, 400, 2500), _u(rng, 0.7, 3.0), 2, _u(rng, 2.0, 10.0), _log(rng, 0.04, 0.25), unison=int(rng.choice([1, 2, 3])),
        detune_cents=_u(rng, 4, 15), spread=_u(rng, 0.2, 0.9),
    )  # fmt: skip


def _string(family: str, rng) -> Timbre:
    nylon, electric = family == "nylon", family in ("clean", "overdrive", "distorted")
    return Timbre(
        family, "struck", 0.002, 30.0, 1.0, _log(rng, 0.05, 0.2), tilt=_u(rng, 1.0, 1.5) if nylon else _u(rng, 0.7, 1.2),
        strike=_u(rng, 0.08, 0.35), ring_s=_log(rng, 1.5, 5.0), damp_hz=_log(rng, 900, 2000) if nylon else _log(rng, 1600, 5000),
        body=() if electric else _body(rng, 4, 90, 1200, 1.8), noise=_u(rng, 0.02, 0.12), noise_hz=(800.0, 7000.0), noise_s=0.012,
        unison=2 if rng.random() < 0.2 else 1, detune_cents=_u(rng, 2, 6), spread=0.3, cutoff_hz=_log(rng, 2500, 9000),
    )  # fmt: skip


def _piano(family: str, rng) -> Timbre:
    harp = family == "harp"
    return Timbre(
        family, "struck", 0.002, 30.0, 1.0, _u(rng, 0.6, 1.2) if harp else _u(rng, 0.1, 0.25), tilt=_u(rng, 0.9, 1.5),
        strike=_u(rng, 0.3, 0.5) if harp else _u(rng, 0.11, 0.14), ring_s=_log(rng, 3.0, 8.0), damp_hz=_log(rng, 700, 2500),
        body=_body(rng, 4, 80, 2500, 0.8), noise=_u(rng, 0.01, 0.06), noise_hz=(120.0, 2500.0), noise_s=0.03,
        unison=2, detune_cents=_u(rng, 0.6, 2.5), spread=_u(rng, 0.2, 0.7), cutoff_hz=_log(rng, 2000, 8000),
    )  # fmt: skip


def _epiano(family: str, rng) -> Timbre:
    if rng.random() < 0.5:
        return Timbre(family, "fm", 0.002, _u(rng, 0.8, 2.5), 0.05, 0.15, sweep_s=_u(rng, 0.1, 0.6), ratio=float(rng.choice([1, 1, 14, 7])),
            fm_index=_u(rng, 0.3, 1.2), unison=2, detune_cents=_u(rng, 1, 5), spread=0.6)  # fmt: skip
    return Timbre(family, "struck", 0.003, 30.0, 1.0, 0.15, tilt=_u(rng, 1.6, 2.4), strike=0.31, ring_s=_u(rng, 2, 4),
        damp_hz=_log(rng, 600, 1500), cutoff_hz=_log(rng, 1200, 4000), spread=0.2)  # fmt: skip


def _clav(family: str, rng) -> Timbre:
    return Timbre(family, "struck", 0.001, 30.0, 1.0, 0.03, tilt=_u(rng, 0.4, 0.9), strike=_u(rng, 0.05, 0.15), ring_s=_u(rng, 0.8, 2.0),
        damp_hz=_log(rng, 1500, 4000), cutoff_hz=9000.0, noise=0.05)  # fmt: skip


def _organ(family: str, rng) -> Timbre:
    bars = tuple(float(value) for value in rng.choice([0, 0.2, 0.5, 0.8, 1.0], size=9))
    accordion = family in ("accordion", "harmonica")
    if accordion:
        return Timbre(family, "blown", 0.03, 1.0, 1.0, 0.06, tilt=_u(rng, 0.6, 1.1), cutoff_hz=_log(rng, 2500, 6000), body=_body(rng, 3, 400, 3500, 1.5),
            unison=2, detune_cents=_u(rng, 6, 18), spread=0.4, sweep_s=0.02, vibrato_hz=5.5, vibrato_cents=_u(rng, 0, 12))  # fmt: skip
    return Timbre(family, "blown", 0.006, 1.0, 1.0, 0.04, harmonics=(1.0, *bars), noise=_u(rng, 0, 0.1), noise_s=0.008, noise_hz=(1500.0, 9000.0),
        cutoff_hz=9000.0, sweep_s=0.001, vibrato_hz=_u(rng, 5, 7), vibrato_cents=_u(rng, 0, 12), spread=0.5, transpose=-12)  # fmt: skip


def _bowed(family: str, rng) -> Timbre:
    ensemble = family != "fiddle"
    return Timbre(
        family, "blown", _log(rng, 0.06, 0.3) if ensemble else _u(rng, 0.03, 0.08), 2.0, 0.9, _log(rng, 0.12, 0.5), tilt=_u(rng, 0.8, 1.2),
        cutoff_hz=_log(rng, 2500, 7000), body=_body(rng, 5, 250, 4500, 1.6), sweep_s=_u(rng, 0.05, 0.2), unison=int(rng.choice([3, 4, 5])) if ensemble else 1,
        detune_cents=_u(rng, 5, 14), spread=_u(rng, 0.5, 1.0) if ensemble else 0.1, vibrato_hz=_u(rng, 4.5, 6.2), vibrato_cents=_u(rng, 5, 22),
        noise=_u(rng, 0.01, 0.05), noise_hz=(2000.0, 9000.0), noise_s=0.0,
    )  # fmt: skip


def _brass(family: str, rng) -> Timbre:
    return Timbre(
        family, "blown", _u(rng, 0.02, 0.07), 1.0, 0.85, _u(rng, 0.05, 0.12), tilt=_u(rng, 0.3, 0.8), cutoff_hz=_log(rng, 1200, 3500),
        body=_body(rng, 3, 500, 2500, 1.5), sweep_s=_u(rng, 0.03, 0.1), unison=int(rng.choice([1, 2, 3])), detune_cents=_u(rng, 4, 12), spread=0.6,
        vibrato_hz=5.0, vibrato_cents=_u(rng, 0, 10), noise=_u(rng, 0.005, 0.03), noise_s=0.0,
    )  # fmt: skip


def _wind(family: str, rng) -> Timbre:
    odd = family == "clarinet"
    count = {"flute": 6, "whistle": 3, "clarinet": 14, "sax": 24}[family]
    steep = {"flute": 1.8, "whistle": 2.5, "clarinet": 0.9, "sax": 0.7}[family]
    levels = tuple(
        float((k**-steep) * rng.uniform(0.5, 1.5) * (0.12 if odd and k % 2 == 0 else 1.0)) for k in range(1, count + 1)
    )
    return Timbre(
        family, "blown", _u(rng, 0.03, 0.08), 1.0, 0.9, _u(rng, 0.05, 0.12), harmonics=levels, cutoff_hz=_log(rng, 2500, 6000), sweep_s=0.05,
        body=_body(rng, 2, 500, 3000, 1.0), vibrato_hz=_u(rng, 4.5, 6), vibrato_cents=_u(rng, 5, 25), noise=_u(rng, 0.02, 0.12), noise_hz=(1000.0, 7000.0), noise_s=0.0,
    )  # fmt: skip


def _fm(family: str, rng) -> Timbre:
    return Timbre(
        family, "fm", _log(rng, 0.002, 0.02), _log(rng, 0.2, 2.0), _u(rng, 0.1, 0.8), _log(rng, 0.06, 0.4), ratio=float(rng.choice([1, 1, 2, 3, 4, 5])),
        fm_index=_log(rng, 0.5, 4.0), sweep_s=_log(rng, 0.08, 0.8), unison=int(rng.choice([1, 2])), detune_cents=_u(rng, 2, 10), spread=_u(rng, 0.2, 0.8),
    )  # fmt: skip


def _modal(family: str, rng) -> Timbre:
    ratios = {
        "bell": (1.0, 2.0, 2.76, 3.0, 4.07, 5.4, 6.8), "vibes": (1.0, 4.0, 10.0), "marimba": (1.0, 3.93, 9.4),
        "kalimba": (1.0, 5.3, 12.4, 2.0),
    }[family]  # fmt: skip
    ratios = tuple(
        float(ratio * rng.uniform(0.985, 1.015)) if ratio not in (1.0, 2.0, 4.0) else ratio for ratio in ratios
    )
    ring = {"bell": (0.8, 3.0), "vibes": (2.0, 5.0), "marimba": (0.2, 0.6), "kalimba": (0.4, 1.2)}[family]
    return Timbre(
        family, "modal", 0.001, 30.0, 1.0, _u(rng, 0.1, 0.5), tilt=_u(rng, 0.6, 1.6), ring_s=_log(rng, *ring), ratios=ratios,
        noise=_u(rng, 0.0, 0.1), noise_s=0.006, vibrato_hz=_u(rng, 3, 6) if family == "vibes" else 0.0, vibrato_cents=0.0, spread=0.2,
    )  # fmt: skip


def _bass_string(family: str, rng) -> Timbre:
    slap, upright, driven = family == "slap", family == "upright", family == "drive"
    return Timbre(
        family, "struck", 0.004 if upright else 0.002, 30.0, 1.0, _u(rng, 0.04, 0.12), tilt=_u(rng, 0.5, 0.9) if slap or driven else _u(rng, 0.9, 1.5),
        strike=_u(rng, 0.04, 0.1) if slap else _u(rng, 0.12, 0.4), ring_s=_u(rng, 0.8, 2.0) if upright else _u(rng, 2, 6),
        damp_hz=_log(rng, 2000, 5000) if slap or driven else _log(rng, 300, 1600), body=_body(rng, 3, 60, 400, 1.0) if upright else (),
        noise=_u(rng, 0.1, 0.3) if slap else _u(rng, 0.0, 0.05), noise_hz=(1200.0, 6000.0) if slap else (300.0, 2500.0), noise_s=0.01,
        cutoff_hz=_log(rng, 3000, 8000) if slap or family == "pick" else _log(rng, 700, 3000),
    )  # fmt: skip


def _bass_synth(family: str, rng) -> Timbre:
    if family == "fm":
        return Timbre(family, "fm", 0.003, _log(rng, 0.2, 1.0), _u(rng, 0.3, 0.9), 0.05, ratio=float(rng.choice([1, 1, 2, 3])), fm_index=_log(rng, 0.8, 3.0),
            sweep_s=_log(rng, 0.05, 0.4))  # fmt: skip
    if family in ("sub", "808"):
        return Timbre(
            family, "subtractive", 0.004, _log(rng, 0.5, 2.0) if family == "808" else 2.0, _u(rng, 0.0, 0.3) if family == "808" else _u(rng, 0.7, 1.0),
            _u(rng, 0.05, 0.2), str(rng.choice(["sine", "triangle", "sine2"])), 0.5, _log(rng, 800, 2500), 0.7, 1, 1.0, 0.1,
        )  # fmt: skip
    reese = family == "reese"
    return Timbre(
        family, "subtractive", 0.004, _log(rng, 0.1, 0.6), _u(rng, 0.3, 1.0), _u(rng, 0.03, 0.12), "square" if family == "square" else "saw", 0.5,
        _log(rng, 350, 1600), _u(rng, 0.7, 4.0), 2, _u(rng, 0.0, 5.0), _log(rng, 0.05, 0.4), unison=int(rng.choice([2, 3])) if reese else int(rng.choice([1, 1, 2])),
        detune_cents=_u(rng, 15, 35) if reese else _u(rng, 2, 8), spread=0.15,
    )  # fmt: skip


def _sweep(family: str, rng) -> Timbre:
    low_hz = _log(rng, 300, 1500)
    return Timbre(
        family,
        "sweep",
        0.01,
        30.0,
        1.0,
        _u(rng, 0.05, 0.6),
        noise_hz=(low_hz, low_hz * _u(rng, 4.0, 12.0)),
        spread=_u(rng, 0.0, 1.0),
    )


FAMILIES = {
    "sweep": _sweep,
    **dict.fromkeys(("saw", "square", "pulse", "supersaw"), _synth), "warm": _warm, "choirless": _warm, "pluck": _pluck,
    **dict.fromkeys(("steel", "nylon", "clean", "overdrive", "distorted"), _string), **dict.fromkeys(("piano", "harp"), _piano),
    "epiano": _epiano, "clav": _clav, **dict.fromkeys(("organ", "accordion", "harmonica"), _organ), **dict.fromkeys(("strings", "fiddle"), _bowed),
    "brass": _brass, **dict.fromkeys(("flute", "whistle", "clarinet", "sax"), _wind), "fm": _fm,
    **dict.fromkeys(("bell", "vibes", "marimba", "kalimba"), _modal),
}  # fmt: skip
BASS_FAMILIES = {
    **dict.fromkeys(("finger", "pick", "slap", "upright", "drive"), _bass_string),
    **dict.fromkeys(("saw", "square", "sub", "808", "reese", "fm"), _bass_synth),
}
