"""Families of synthesiser timbres; every call draws a new one."""

from __future__ import annotations

from tsbs_daw.lab.songs.synth_player import Timbre, log_uniform, uniform


def synth(family: str, rng) -> Timbre:
    wave = {"square": "square", "pulse": "pulse"}.get(family, "saw")
    unison = int(rng.choice([1, 1, 2, 3])) if family != "supersaw" else int(rng.choice([5, 7]))
    plucky = rng.random() < 0.5 and family != "supersaw"
    return Timbre(
        family,
        "subtractive",
        attack_s=log_uniform(rng, 0.002, 0.02),
        decay_s=log_uniform(rng, 0.1, 0.6),
        sustain=uniform(rng, 0.1, 0.4) if plucky else uniform(rng, 0.6, 1.0),
        release_s=log_uniform(rng, 0.04, 0.4),
        wave=wave,
        pulse_width=uniform(rng, 0.1, 0.45),
        cutoff_hz=log_uniform(rng, 500, 6000),
        resonance=uniform(rng, 0.6, 3.5),
        slopes=int(rng.choice([1, 2])),
        sweep=uniform(rng, 0.0, 6.0),
        sweep_s=log_uniform(rng, 0.05, 0.8),
        unison=unison,
        detune_cents=uniform(rng, 3, 22),
        spread=uniform(rng, 0.2, 1.0),
        vibrato_hz=uniform(rng, 4, 6),
        vibrato_cents=uniform(rng, 0, 8),
        octaves=(0,) if rng.random() < 0.7 else (0, -12),
    )


def warm(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=log_uniform(rng, 0.05, 0.6),
        decay_s=2.0,
        sustain=uniform(rng, 0.7, 1.0),
        release_s=log_uniform(rng, 0.3, 1.5),
        wave=str(rng.choice(["saw", "pulse", "square"])),
        pulse_width=uniform(rng, 0.2, 0.5),
        cutoff_hz=log_uniform(rng, 350, 2200),
        resonance=uniform(rng, 0.6, 1.6),
        slopes=2,
        sweep=uniform(rng, -0.4, 1.5),
        sweep_s=log_uniform(rng, 0.4, 2.0),
        unison=int(rng.choice([2, 3, 4])),
        detune_cents=uniform(rng, 5, 18),
        spread=uniform(rng, 0.4, 1.0),
        noise=uniform(rng, 0.0, 0.03),
        noise_s=0.0,
    )


def pluck(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=0.002,
        decay_s=log_uniform(rng, 0.08, 0.4),
        sustain=uniform(rng, 0.0, 0.1),
        release_s=log_uniform(rng, 0.08, 0.5),
        wave=str(rng.choice(["saw", "square", "triangle"])),
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 400, 2500),
        resonance=uniform(rng, 0.7, 3.0),
        slopes=2,
        sweep=uniform(rng, 2.0, 10.0),
        sweep_s=log_uniform(rng, 0.04, 0.25),
        unison=int(rng.choice([1, 2, 3])),
        detune_cents=uniform(rng, 4, 15),
        spread=uniform(rng, 0.2, 0.9),
    )


def fm(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "fm",
        attack_s=log_uniform(rng, 0.002, 0.02),
        decay_s=log_uniform(rng, 0.2, 2.0),
        sustain=uniform(rng, 0.1, 0.8),
        release_s=log_uniform(rng, 0.06, 0.4),
        ratio=float(rng.choice([1, 1, 2, 3, 4, 5])),
        fm_index=log_uniform(rng, 0.5, 4.0),
        sweep_s=log_uniform(rng, 0.08, 0.8),
        unison=int(rng.choice([1, 2])),
        detune_cents=uniform(rng, 2, 10),
        spread=uniform(rng, 0.2, 0.8),
    )


def bass_synth(family: str, rng) -> Timbre:
    kinds = {"fm": _fm_bass, "sub": _sub_bass, "808": _sub_bass}
    return kinds.get(family, _filtered_bass)(family, rng)


def _fm_bass(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "fm",
        attack_s=0.003,
        decay_s=log_uniform(rng, 0.2, 1.0),
        sustain=uniform(rng, 0.3, 0.9),
        release_s=0.05,
        ratio=float(rng.choice([1, 1, 2, 3])),
        fm_index=log_uniform(rng, 0.8, 3.0),
        sweep_s=log_uniform(rng, 0.05, 0.4),
    )


def _sub_bass(family: str, rng) -> Timbre:
    return Timbre(
        family,
        "subtractive",
        attack_s=0.004,
        decay_s=log_uniform(rng, 0.5, 2.0) if family == "808" else 2.0,
        sustain=uniform(rng, 0.0, 0.3) if family == "808" else uniform(rng, 0.7, 1.0),
        release_s=uniform(rng, 0.05, 0.2),
        wave=str(rng.choice(["sine", "triangle", "sine2"])),
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 800, 2500),
        resonance=0.7,
        slopes=1,
        sweep=1.0,
        sweep_s=0.1,
    )


def _filtered_bass(family: str, rng) -> Timbre:
    reese = family == "reese"
    return Timbre(
        family,
        "subtractive",
        attack_s=0.004,
        decay_s=log_uniform(rng, 0.1, 0.6),
        sustain=uniform(rng, 0.3, 1.0),
        release_s=uniform(rng, 0.03, 0.12),
        wave="square" if family == "square" else "saw",
        pulse_width=0.5,
        cutoff_hz=log_uniform(rng, 350, 1600),
        resonance=uniform(rng, 0.7, 4.0),
        slopes=2,
        sweep=uniform(rng, 0.0, 5.0),
        sweep_s=log_uniform(rng, 0.05, 0.4),
        unison=int(rng.choice([2, 3])) if reese else int(rng.choice([1, 1, 2])),
        detune_cents=uniform(rng, 15, 35) if reese else uniform(rng, 2, 8),
        spread=0.15,
    )


def sweep(family: str, rng) -> Timbre:
    low_hz = log_uniform(rng, 300, 1500)
    return Timbre(
        family,
        "sweep",
        attack_s=0.01,
        decay_s=30.0,
        sustain=1.0,
        release_s=uniform(rng, 0.05, 0.6),
        noise_hz=(low_hz, low_hz * uniform(rng, 4.0, 12.0)),
        spread=uniform(rng, 0.0, 1.0),
    )


def acid(rng) -> Timbre:
    """A bass that squeals: one oscillator into a filter close to whistling, opened by every accent."""
    return Timbre(
        "acid",
        "subtractive",
        attack_s=0.003,
        decay_s=log_uniform(rng, 0.15, 0.6),
        sustain=uniform(rng, 0.1, 0.6),
        release_s=0.02,
        wave=str(rng.choice(["saw", "saw", "square"])),
        cutoff_hz=log_uniform(rng, 250, 900),
        resonance=uniform(rng, 4.0, 11.0),
        slopes=2,
        sweep=uniform(rng, 3.0, 9.0),
        sweep_s=log_uniform(rng, 0.06, 0.3),
    )
