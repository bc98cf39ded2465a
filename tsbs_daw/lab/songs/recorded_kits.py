"""Drum parts on recorded kits: a kit per song, layers and takes per stroke, hi-hats that choke, a drummer."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, gain
from tsbs_daw.lab.songs.instruments import SOFTEST, shape, transpose
from tsbs_daw.lab.songs.kits import ELECTRONIC, LEVEL, PAN, group_of
from tsbs_daw.lab.songs.material import Material, Recording
from tsbs_daw.lab.songs.score import Hit, Part, Score

# Which kinds of recordings a piece can be; the first that a kit has is used.
KINDS = {
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
PERCUSSION = {
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


class Drum:
    """One drum or cymbal: its recorded strokes, and the gain that brings the loudest to full scale."""

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


def play_recorded_kit(
    part: Part, score: Score, samples: int, material: Material, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Play a drum part: one (2, samples) signal per mixing group "kick", "snare", "top"."""
    pieces = sorted({hit.piece for hit in part.events})
    drums = {piece: _drum(piece, part.timbre["kit"], material, rng) for piece in pieces}
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


def _drum(piece: str, kit: str, material: Material, rng: np.random.Generator) -> Drum | None:
    """A drum from the song's kit, or another that has one; None when no kit does."""
    models = _models(piece, material)
    if not models:
        return None
    own = [model for model in models if model[0].source == kit]
    choices = own if own and rng.random() < LOYALTY else models
    tuning = float(np.clip(rng.normal(0, 1.2), -3, 3)) if rng.random() < 0.4 else 0.0
    return Drum(material, choices[int(rng.integers(len(choices)))], tuning)


def _models(piece: str, material: Material) -> list[list[Recording]]:
    """Every drum of the pack that can be this piece: the recordings of each, which differ by strength and take only."""
    models: dict[tuple, list[Recording]] = {}
    drums = [recording for recording in material.recordings if recording.stem == "drums"]
    for kind in KINDS.get(piece, ()):
        for recording in drums:
            if recording.kind == kind and not recording.articulation.startswith(("snare_brush", "perc_snap")):
                models.setdefault(_model_of(recording), []).append(recording)
        if models:
            break
    for recording in drums if not models else ():
        if recording.kind != "loop" and recording.articulation.startswith(PERCUSSION.get(piece, ("?",))):
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
