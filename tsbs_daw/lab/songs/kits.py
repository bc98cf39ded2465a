"""Drum kits, synthesised and recorded: each plays a drum part as one signal per mixing group.

Of a synthesised kit every piece is made once per song in a few strengths, then struck where the score says. A recorded
kit has layers and takes per stroke, hi-hats that choke, and a drummer who is not a machine.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, bandpass, gain, shaped_noise
from tsbs_daw.lab.songs.instruments import SOFTEST, shape, transpose
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.score import Hit, Part, Score

ELECTRONIC = {"808", "909", "electro"}
PAN = {
    "hat": 0.3, "open": 0.3, "ride": -0.4, "crash": -0.3, "tom_high": 0.35, "tom": 0.0, "tom_low": -0.4, "shaker": 0.5,
    "tambourine": -0.5, "conga": -0.3, "bongo": 0.4, "cowbell": 0.3, "rim": 0.1, "clave": -0.2,
}  # fmt: skip
LEVEL = {
    "kick": 1.0, "snare": 0.8, "clap": 0.55, "hat": 0.3, "open": 0.3, "ride": 0.3, "crash": 0.5, "rim": 0.4,
    "shaker": 0.22, "tambourine": 0.25, "cowbell": 0.28, "clave": 0.3, "conga": 0.5, "bongo": 0.4, "snap": 0.4,
    "brush": 0.4, "tom": 0.8, "tom_high": 0.75, "tom_low": 0.85,
}  # fmt: skip
VARIANTS = 3  # strengths of a synthesised drum


def group_of(piece: str) -> str:
    """The mixing group of a piece."""
    return "kick" if piece == "kick" else "snare" if piece in ("snare", "clap", "snap") else "top"


def play_kit(part: Part, score: Score, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Strike every hit: one (2, samples) signal per mixing group "kick", "snare", "top"."""
    kit = part.timbre["family"]
    groups = {name: np.zeros((2, samples), dtype=np.float32) for name in ("kick", "snare", "top")}
    width, balance = _u(rng, 0.2, 1.0), {piece: float(10 ** (rng.normal(0, 1.8) / 20)) for piece in sorted(LEVEL)}
    mirrored = -1 if rng.random() < 0.5 else 1
    humanise_s = 0.0005 if kit in ELECTRONIC else _u(rng, 0.002, 0.006)
    sounds: dict[str, list[np.ndarray]] = {}
    for hit in part.events:
        if hit.piece not in sounds:
            piece_rng = np.random.default_rng(rng.integers(2**63))
            state = piece_rng.bit_generator.state
            sounds[hit.piece] = []
            variants = 1 if kit in ELECTRONIC else VARIANTS
            for variant in range(variants):
                piece_rng.bit_generator.state = state  # the same drum, struck a little differently
                sound = _piece(hit.piece, kit, piece_rng)
                tilt = np.float32(0.12 * variant)
                sound = sound - tilt * np.concatenate([np.zeros(1, np.float32), sound[:-1]])
                fade = min(len(sound), 2000)
                sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
                sounds[hit.piece].append(sound / max(float(np.max(np.abs(sound))), 1e-6))
        takes = sounds[hit.piece]
        sound = takes[int(rng.integers(len(takes)))]
        level = np.float32(0.7 * LEVEL[hit.piece] * balance[hit.piece] * hit.velocity**1.6)
        pan = PAN.get(hit.piece, 0.0) * width * mirrored
        start = int((score.seconds(hit.beat) + abs(float(rng.normal(0, humanise_s)))) * SAMPLE_RATE)
        group = groups[group_of(hit.piece)]
        add_at(group[0], start, sound * (level * np.float32(np.sqrt(0.5 * (1 - pan)))))
        add_at(group[1], start, sound * (level * np.float32(np.sqrt(0.5 * (1 + pan)))))
    return groups


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE


def _sweep(high_hz: float, low_hz: float, bend_s: float, decay_s: float, seconds: float) -> np.ndarray:
    """A sine whose pitch falls: the body of kicks and toms."""
    time_s = _time(seconds)
    phase = 2 * np.pi * (low_hz * time_s + (high_hz - low_hz) * bend_s * (1 - np.exp(-time_s / bend_s)))
    return (np.sin(phase) * np.exp(-time_s / decay_s)).astype(np.float32)


def _burst(rng, low_hz: float, high_hz: float, decay_s: float, seconds: float) -> np.ndarray:
    time_s = _time(seconds)
    noise = shaped_noise(rng, len(time_s), bandpass(low_hz, high_hz))
    attack = np.minimum(time_s / 0.0006, 1.0)
    return noise * attack * np.exp(-time_s / decay_s)


def _metal(rng, low_hz: float, decay_s: float, seconds: float, modes: int, grain: float) -> np.ndarray:
    """Cymbals: many inharmonic modes and noise; high partials die faster."""
    time_s = _time(seconds)
    size = 1 << int(np.ceil(np.log2(len(time_s))))
    output = np.zeros(len(time_s), dtype=np.float32)
    for fraction, low in ((1.0, low_hz), (0.55, low_hz * 2.2), (0.3, 9000.0)):
        output += 0.5 * _burst(rng, low, min(low * 3.5, 19000), decay_s * fraction, seconds)
    frequencies = low_hz * np.sort(rng.uniform(0.5, 6.0, modes))
    spectrum = np.zeros(size // 2 + 1, dtype=np.complex64)
    bins = np.minimum((frequencies / SAMPLE_RATE * size).astype(int), size // 2 - 1)
    spectrum[bins] = np.exp(2j * np.pi * rng.random(modes)) * (frequencies / low_hz) ** -0.4
    ring = np.fft.irfft(spectrum, n=size)[: len(time_s)].astype(np.float32)
    ring *= np.exp(-time_s / decay_s) / max(float(np.sqrt(np.mean(ring**2))), 1e-9)
    attack = np.minimum(time_s / 0.0008, 1.0)
    return (output + grain * ring) * attack


def _modes(frequencies, decays, levels, seconds: float) -> np.ndarray:
    time_s = _time(seconds)
    output = np.zeros(len(time_s), dtype=np.float32)
    for frequency, decay, level in zip(frequencies, decays, levels, strict=True):
        output += (
            np.float32(level) * np.sin(np.float32(2 * np.pi * frequency) * time_s) * np.exp(-time_s / np.float32(decay))
        )
    return output


def _u(rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _kick(kit: str, rng) -> np.ndarray:
    low = _u(rng, 42, 62)
    if kit == "808":
        return _sweep(_u(rng, 90, 160), _u(rng, 38, 52), 0.02, _u(rng, 0.25, 0.7), 1.4) + 0.15 * _burst(
            rng, 1000, 5000, 0.003, 1.4
        )
    if kit in ("909", "electro", "gated"):
        click = _burst(rng, 1500, 9000, _u(rng, 0.002, 0.006), 0.6)
        return (
            _sweep(_u(rng, 180, 420), low, _u(rng, 0.015, 0.045), _u(rng, 0.12, 0.28), 0.6)
            + _u(rng, 0.05, 0.25) * click
        )
    hard = {"metal": 0.5, "room": 0.3, "jazz": 0.08, "brush": 0.08, "hand": 0.05}.get(kit, 0.2)
    body = _sweep(_u(rng, 110, 220), low + 6, _u(rng, 0.008, 0.025), _u(rng, 0.09, 0.2), 0.5)
    shell = _modes((low * 1.6, low * 2.7, low * 3.6), (0.08, 0.05, 0.03), (0.3, 0.15, 0.1), 0.5)
    beater = _burst(rng, _u(rng, 1500, 3500), 9000, 0.005, 0.5)
    air = _burst(rng, 60, 400, 0.05, 0.5)
    return body + shell + hard * beater + 0.12 * air


def _snare(kit: str, rng) -> np.ndarray:
    pitch = _u(rng, 165, 260)
    if kit in ELECTRONIC:
        tone = _modes((pitch, pitch * 1.83), (0.06, 0.05), (0.8, 0.4), 0.5)
        return tone + _u(rng, 0.5, 1.0) * _burst(rng, _u(rng, 700, 2000), 12000, _u(rng, 0.05, 0.16), 0.5)
    long = {"brush": 0.06, "jazz": 0.09, "room": 0.16, "gated": 0.2, "dusty": 0.1}.get(kit, 0.12) * _u(rng, 0.7, 1.3)
    drum = _modes(
        (pitch, pitch * 1.59, pitch * 2.14, pitch * 2.65, pitch * 3.5),
        (0.11, 0.08, 0.06, 0.045, 0.03),
        (0.8, 0.5, 0.35, 0.25, 0.15),
        0.6,
    )
    wires = _burst(rng, _u(rng, 1200, 2600), _u(rng, 8000, 14000), long, 0.6)
    stick = _burst(rng, 2500, 12000, 0.003, 0.6)
    return drum * _u(rng, 0.4, 1.0) + wires * _u(rng, 0.5, 0.9) + 0.5 * stick


def _clap(rng) -> np.ndarray:
    output = np.zeros(int(0.4 * SAMPLE_RATE), dtype=np.float32)
    for index in range(4):
        add_at(
            output,
            int(index * _u(rng, 0.008, 0.013) * SAMPLE_RATE),
            _burst(rng, 800, 4500, 0.006 if index < 3 else _u(rng, 0.05, 0.13), 0.3),
        )
    return output


def _piece(piece: str, kit: str, rng) -> np.ndarray:
    electronic = kit in ELECTRONIC
    if piece == "kick":
        return _kick(kit, rng)
    if piece == "snare":
        return _snare(kit, rng)
    if piece == "clap":
        return _clap(rng)
    if piece in ("hat", "open"):
        low = _u(rng, 4500, 8000) if electronic else _u(rng, 2800, 5500)
        decay = _u(rng, 0.018, 0.05) if piece == "hat" else _u(rng, 0.15, 0.45)
        return 0.5 * _metal(rng, low, decay, 0.25 if piece == "hat" else 1.0, 40, 0.5 if electronic else 0.3)
    if piece == "ride":
        ping = _modes(rng.uniform(2500, 6500, 4), (0.3,) * 4, (0.2,) * 4, 1.6)
        return 0.35 * _metal(rng, _u(rng, 2500, 4500), _u(rng, 0.35, 0.8), 1.6, 60, 0.5) + ping * 0.6
    if piece == "crash":
        return 0.6 * _metal(rng, _u(rng, 1200, 3000), _u(rng, 0.6, 1.4), 3.0, 90, 0.3)
    if piece.startswith("tom"):
        pitch = {"tom_high": 190.0, "tom": 135.0, "tom_low": 88.0}[piece] * _u(rng, 0.85, 1.15)
        skin = 0.15 * _burst(rng, 800, 5000, 0.012, 0.8)
        return (
            _sweep(pitch * 1.5, pitch, 0.03, _u(rng, 0.15, 0.3), 0.8)
            + 0.3 * _modes((pitch * 1.6, pitch * 2.3), (0.1, 0.06), (1, 0.5), 0.8)
            + skin
        )
    return _percussion(piece, rng)


def _percussion(piece: str, rng) -> np.ndarray:
    if piece == "rim":
        return _modes((_u(rng, 1500, 1900), 480, 2700), (0.012, 0.02, 0.008), (0.8, 0.4, 0.4), 0.15) + 0.2 * _burst(
            rng, 2000, 9000, 0.004, 0.15
        )
    if piece == "clave":
        return _modes((_u(rng, 2200, 2700),), (0.025,), (1.0,), 0.2)
    if piece == "cowbell":
        return _modes(
            (_u(rng, 530, 570), _u(rng, 790, 860), 1650, 2480), (0.08, 0.1, 0.04, 0.03), (0.6, 0.6, 0.2, 0.2), 0.4
        )
    if piece in ("conga", "bongo"):
        pitch = _u(rng, 170, 260) if piece == "conga" else _u(rng, 320, 480)
        return _modes((pitch, pitch * 1.6, pitch * 2.3), (0.1, 0.05, 0.03), (1, 0.4, 0.2), 0.4) + 0.15 * _burst(
            rng, 700, 5000, 0.008, 0.4
        )
    if piece == "tambourine":
        return 0.6 * _metal(rng, 5500, _u(rng, 0.06, 0.12), 0.4, 24, 0.6)
    if piece == "snap":
        return _burst(rng, 1200, 5000, 0.012, 0.2)
    if piece == "brush":
        time_s = _time(0.3)
        return (
            0.5
            * shaped_noise(rng, len(time_s), bandpass(1200, 8000))
            * np.minimum(time_s / 0.02, 1)
            * np.exp(-time_s / _u(rng, 0.04, 0.08))
        )
    time_s = _time(0.15)  # shaker
    return (
        0.5
        * shaped_noise(rng, len(time_s), bandpass(4500, 12000))
        * np.sin(np.pi * np.minimum(time_s / 0.07, 1.0)) ** 2
    )


# Which kinds of recordings a piece can be; the first that a kit has is used.
RECORDED_KINDS = {
    "kick": ("kick",),
    "snare": ("snare",),
    "clap": ("clap",),
    "hat": ("hihat-closed", "hihat-pedal"),
    "open": ("hihat-open", "hihat-half"),
    "ride": ("ride", "ride-bell"),
    "crash": ("crash", "china"),
    "rim": ("rim",),
    "tom_high": ("tom1",),
    "tom": ("tom2",),
    "tom_low": ("tom3", "tom4"),
}
# Percussion is told apart by the beginning of its articulation.
RECORDED_PERCUSSION = {
    "shaker": ("shaker", "egg_shaker"),
    "tambourine": ("tambourine", "ritz_tambourine"),
    "cowbell": ("cowbell", "drum_cowbell", "g#4 - cowbell"),
    "clave": ("woodblock", "elec_wood", "wooden"),
    "conga": ("conga", "hand_drum", "tabla_ghe", "war_drum"),
    "bongo": ("glitch_bongo", "tabla_t", "tabla_na", "hand_drum"),
    "snap": ("perc_snap",),
    "brush": ("snare_brush", "brush_hit"),
    "rim": ("elec_pop", "tabla_ke", "drum_low"),
}
# How often a kit is drawn; kits of drum machines for electronic styles, kits of drums for the others.
ACOUSTIC_KITS = {"muldjordkit": 0.42, "gogodze-phu-2": 0.42, "rumpf-kit": 0.08, "sonic-pi-drums": 0.08}
MACHINE_KITS = {"sonic-pi-drums": 0.62, "rumpf-kit": 0.23, "gogodze-phu-2": 0.1, "muldjordkit": 0.05}
LOYALTY = 0.85  # how often a piece comes from the song's kit when the kit has it
CHOKED_BY = {"open": ("hat", "open")}
CHOKE_S = 0.03
NEIGHBOURS = 0.15  # velocities within which strokes alternate


def play_recorded_kit(
    part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Play a drum part: one (2, samples) signal per mixing group "kick", "snare", "top"."""
    pieces = sorted({hit.piece for hit in part.events})
    drums = {piece: _recorded_drum(piece, part.timbre["kit"], material, rng) for piece in pieces}
    groups = {name: np.zeros((2, samples), dtype=np.float32) for name in ("kick", "snare", "top")}
    width, mirrored = float(rng.uniform(0.2, 1.0)), -1 if rng.random() < 0.5 else 1
    balance = {piece: gain(float(rng.normal(0, 2.5))) for piece in pieces}
    for hit, start_s, choked_s in _performance(part, score, rng):
        drum = drums[hit.piece]
        start = int(start_s * SAMPLE_RATE)
        if drum is None or start >= samples:
            continue
        sound = drum.strike(hit.velocity, rng, choked_s)
        level = np.float32(0.7 * LEVEL[hit.piece] * balance[hit.piece])
        group = groups[group_of(hit.piece)]
        if len(sound) == 2:  # recorded in its place in the kit
            add_at(group, start, (sound if mirrored > 0 else sound[::-1]) * level)
            continue
        pan = PAN.get(hit.piece, 0.0) * width * mirrored
        add_at(group[0], start, sound[0] * (level * np.float32(np.sqrt(0.5 * (1 - pan)))))
        add_at(group[1], start, sound[0] * (level * np.float32(np.sqrt(0.5 * (1 + pan)))))
    return groups


def draw_kit(family: str, material: Material, rng: np.random.Generator) -> str | None:
    """The source of a song's kit, drawn among those that the pack has; None without any."""
    table = MACHINE_KITS if family in ELECTRONIC else ACOUSTIC_KITS
    have = {recording.source for recording in material.recordings if recording.stem == "drums"}
    kits = [name for name in table if name in have]
    if not kits:
        return None
    shares = np.array([table[name] for name in kits])
    return str(kits[int(rng.choice(len(kits), p=shares / shares.sum()))])


class RecordedDrum:
    """One drum or cymbal of a recorded kit: its strokes, and the gain that brings the loudest to full scale."""

    def __init__(self, material: Material, strokes: list[Recording], semitones: float):
        self._material, self._strokes, self._ratio = material, strokes, 2.0 ** (semitones / 12.0)
        self._scale = gain(-max(stroke.peak_db for stroke in strokes))
        self._sounds: dict[str, np.ndarray] = {}
        self._last = ""

    def strike(self, velocity: float, rng: np.random.Generator, seconds: float = 60.0) -> np.ndarray:
        """One stroke, choked after `seconds`: (channels, samples) float32; never the same take twice in a row."""
        distance = [abs(stroke.velocity - velocity) for stroke in self._strokes]
        reach = max(min(distance) + 0.02, min(NEIGHBOURS, min(distance) + NEIGHBOURS))
        near = [stroke for stroke, far in zip(self._strokes, distance, strict=True) if far <= reach]
        fresh = [stroke for stroke in near if stroke.path != self._last] or near
        stroke = fresh[int(rng.integers(len(fresh)))]
        self._last = stroke.path
        if stroke.path not in self._sounds:
            sound = transpose(self._material.audio(stroke), self._ratio)
            self._sounds[stroke.path] = shape(sound, sound.shape[1] / SAMPLE_RATE, 0.0, 0.0002)
        sound = self._sounds[stroke.path]
        if seconds * SAMPLE_RATE < sound.shape[1]:
            sound = shape(sound, seconds, CHOKE_S, 0.0)
        level = np.clip((velocity + SOFTEST) / (stroke.velocity + SOFTEST), 0.25, 1.6)
        return sound * np.float32(self._scale * level)


def _recorded_drum(piece: str, kit: str, material: Material, rng: np.random.Generator) -> RecordedDrum | None:
    """A drum from the song's kit, or another that has one; None when no kit does."""
    models = _recorded_models(piece, material)
    if not models:
        return None
    own = [model for model in models if model[0].source == kit]
    choices = own if own and rng.random() < LOYALTY else models
    tuning = float(np.clip(rng.normal(0, 1.2), -3, 3)) if rng.random() < 0.4 else 0.0
    return RecordedDrum(material, choices[int(rng.integers(len(choices)))], tuning)


def _recorded_models(piece: str, material: Material) -> list[list[Recording]]:
    """Every drum of the pack that can be this piece: the recordings of each, which differ by strength and take only."""
    models: dict[tuple, list[Recording]] = {}
    drums = [recording for recording in material.recordings if recording.stem == "drums"]
    for kind in RECORDED_KINDS.get(piece, ()):
        for recording in drums:
            if recording.kind == kind and not recording.articulation.startswith(("snare_brush", "perc_snap")):
                models.setdefault(_model_of(recording), []).append(recording)
        if models:
            break
    for recording in drums if not models else ():
        if recording.kind != "loop" and recording.articulation.startswith(RECORDED_PERCUSSION.get(piece, ("?",))):
            models.setdefault(_model_of(recording), []).append(recording)
    return list(models.values())


def _model_of(recording: Recording) -> tuple[str, str, str, str]:
    microphones = next((tag for tag in ("dry", "roomy") if recording.path.endswith(f"__{tag}.ogg")), "")
    return recording.source, recording.kind, recording.articulation, microphones


def _performance(part: Part, score: Score, rng: np.random.Generator) -> list[tuple[Hit, float, float]]:
    """Hits as a drummer places them: (hit, start_s, seconds until it is choked).

    Snares lie a little late or early for a whole song, all limbs drift together, strokes between the beats are softer,
    strong snares are flammed now and then. Machines play what is written.
    """
    machine = part.timbre["family"] in ELECTRONIC
    loose_s = 0.0004 if machine else float(rng.uniform(0.0015, 0.006))
    lean = {"kick": 0.0, "snare": float(rng.normal(0.002, 0.004)), "top": float(rng.normal(-0.001, 0.003))}
    depth = 0.03 if machine else float(rng.uniform(0.04, 0.12))
    drift, previous, played = 0.0, -1.0, []
    for hit in part.events:
        if hit.beat != previous:
            drift, previous = 0.9 * drift + float(rng.normal(0, 0.4 * loose_s)), hit.beat
        late = 0.0 if machine else drift + lean[group_of(hit.piece)]
        start_s = max(score.seconds(hit.beat) + late + float(rng.normal(0, 0.5 * loose_s)), 0.0)
        weak = 0.0 if hit.beat % 1 == 0 else depth
        velocity = float(np.clip(hit.velocity - weak + rng.normal(0, depth * 0.6), 0.05, 1.0))
        played.append((Hit(hit.beat, hit.piece, velocity), start_s))
        if not machine and hit.piece == "snare" and hit.velocity > 0.8 and rng.random() < 0.03:
            grace = Hit(hit.beat, "snare", 0.4 * velocity)
            played.append((grace, max(start_s - float(rng.uniform(0.018, 0.035)), 0.0)))
    played.sort(key=lambda item: item[1])
    return _choke(played)


def _choke(played: list[tuple[Hit, float]]) -> list[tuple[Hit, float, float]]:
    following: dict[str, float] = {}
    choked = []
    for hit, start_s in reversed(played):
        ends = [following[piece] for piece in CHOKED_BY.get(hit.piece, ()) if piece in following]
        choked.append((hit, start_s, min(ends) - start_s if ends else 60.0))
        following[hit.piece] = start_s
    return choked[::-1]
