"""Performances of recorded voices for a voice bank: sung, tuned, rapped, spoken, whispered, backing, chopped, vocoded.

Every kind is drawn by seed; `KINDS` says how much of a bank each one fills.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tsbs_daw.lab.songs.compose import VOICES, compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, add_at, shaped_noise, stream
from tsbs_daw.lab.songs.instruments import choir, resampled
from tsbs_daw.lab.songs.lines import backing_chords, harmony_of, lexicon, rap_line, sung_line
from tsbs_daw.lab.songs.material import Recording
from tsbs_daw.lab.songs.recorded_voice import Delivery, revoice, sing_recorded
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.speakers import Speaker, Speakers, Syllable, limited
from tsbs_daw.lab.songs.voice import Singer, random_singer

# Shares of a bank's seconds.
KINDS = {
    "sung": 0.36, "tuned": 0.07, "sung-syllables": 0.08, "resung": 0.1, "backing": 0.09, "rap": 0.13, "spoken": 0.12,
    "whisper": 0.03, "ad-lib": 0.03, "chopped": 0.04, "vocoded": 0.03, "pitched": 0.03,
}  # fmt: skip
SECONDS = (11.0, 19.0)
TEXT_SHARE = 4.0  # a speaker with hundreds of sentences is drawn this much more often than one with a single one
CHILD = (60, 81)
SENTENCES = 4


@dataclass
class Performance:
    """Audio of a performance and its description. Notes are (start_s, end_s, MIDI pitch)."""

    kind: str
    audio: np.ndarray  # (samples,) float32; starts on a downbeat
    recordings: list[str]
    speaker: str
    score: Score | None = None
    notes: list[tuple[float, float, float]] = field(default_factory=list)
    companions: dict[str, np.ndarray] = field(default_factory=dict)  # "double", "harmony": the same time, other takes


def perform(kind: str, speakers: Speakers, seed: int) -> Performance:
    """A performance of one of `KINDS`; the same seed gives the same."""
    return _MAKERS[kind](speakers, seed, stream(seed, "performance", kind))


@dataclass(frozen=True)
class _Cast:
    """The speaker of a performance, what is sung, and how."""

    speaker: Speaker
    recordings: list[Recording]
    syllables: list[Syllable]
    delivery: Delivery
    singer: Singer
    low: int
    high: int


def _cast(speakers: Speakers, rng: np.random.Generator, kind: str = "sung") -> _Cast:
    while True:
        weights = np.array([1.0 + TEXT_SHARE * (len(one.recordings) > 100) for one in speakers.spoken])
        speaker = speakers.spoken[int(rng.choice(len(weights), p=weights / weights.sum()))]
        count = min(SENTENCES, len(speaker.recordings))
        first = int(rng.integers(len(speaker.recordings)))
        chosen = [speaker.recordings[(first + number) % len(speaker.recordings)] for number in range(count)]
        airy = limited(chosen) and rng.random() < 0.7
        syllables = speakers.syllables(chosen, airy)
        if len(syllables) >= 6:
            break
    formants = float(rng.uniform(0.95, 1.06) if rng.random() < 0.45 else rng.uniform(0.82, 1.22))
    voice, (low, high) = _register(speaker.tract * formants, rng)
    delivery = Delivery(
        formants=formants,
        effort_db=float(rng.uniform(-1.0, 8.0)),
        evenness=float(rng.uniform(0.3, 0.9)),
        raw_consonants=not airy,
    )
    return _Cast(speaker, chosen, syllables, delivery, random_singer(voice, kind, rng), low, high)


def _register(tract: float, rng: np.random.Generator) -> tuple[str, tuple[int, int]]:
    """The voice type that a tract belongs to, sometimes its neighbour, and its range."""
    names = ["bass", "baritone", "tenor", "alto", "soprano"]
    place = int(np.searchsorted([0.92, 1.0, 1.08, 1.2], tract + rng.normal(0, 0.03)))
    place = int(np.clip(place + rng.choice([-1, 0, 0, 0, 0, 1]), 0, 4))
    return names[place], CHILD if tract > 1.3 else VOICES[names[place]]


def _score(seed: int, rng: np.random.Generator) -> Score:
    """Whole bars of about SECONDS."""
    wanted_s = float(rng.uniform(*SECONDS))
    plan = compose(seed, wanted_s, complete=True)
    bar_s = plan.bar_beats * 60.0 / plan.tempo_bpm
    bars = max(2 * round(wanted_s / bar_s / 2), 2)
    return compose(seed, bars * bar_s - 0.01, complete=True)


def _melody(score: Score, low: int, high: int, rng: np.random.Generator) -> list[Sung]:
    words, busy = lexicon(rng, int(rng.integers(10, 26))), float(rng.uniform(0.1, 0.9))
    line: list[Sung] = []
    for section in score.sections:
        line += sung_line(section, score, low, high, words, busy, rng)
    return line


def _notes(line: Sequence[Sung], score: Score) -> list[tuple[float, float, float]]:
    return [
        (round(score.seconds(n.beat), 3), round(score.seconds(n.beat + n.beats), 3), round(float(n.pitch), 2))
        for n in line
    ]


def _sing(line: list[Sung], cast: _Cast, score: Score, seed: int, take: str, loose_s: float = 0.012) -> np.ndarray:
    samples = int(score.duration_s * SAMPLE_RATE)
    rng = stream(seed, "take", take)
    voice = sing_recorded(line, cast.syllables, cast.delivery, cast.singer, score, samples, rng, loose_s)
    return voice + _breaths(line, score, voice, cast, rng)


def _breaths(line: list[Sung], score: Score, voice: np.ndarray, cast: _Cast, rng: np.random.Generator) -> np.ndarray:
    """Air drawn before most phrases."""
    breaths = np.zeros_like(voice)
    level = 0.35 * float(np.sqrt(np.mean(voice[np.abs(voice) > 1e-3] ** 2))) if np.any(np.abs(voice) > 1e-3) else 0.0
    for note in line:
        if not note.phrase_start or rng.random() < 0.25:
            continue
        length_s = float(rng.uniform(0.18, 0.45))
        centre_hz = 1500.0 * cast.delivery.formants * float(rng.uniform(0.8, 1.4))

        def response(hz, centre_hz=centre_hz):
            wide = 1.0 / (1.0 + (np.maximum(hz, 1) / 6000.0) ** 2)
            return wide * (0.15 + np.exp(-0.5 * (np.log2(np.maximum(hz, 20) / centre_hz) / 0.5) ** 2))

        sound = shaped_noise(rng, int(length_s * SAMPLE_RATE), response)
        shape = np.sin(np.pi * np.linspace(0, 1, len(sound)) ** 1.4) ** 2
        start = int((score.seconds(note.beat) - length_s - float(rng.uniform(0.06, 0.16))) * SAMPLE_RATE)
        if start > 0 and not np.any(np.abs(voice[start : start + len(sound)]) > 3e-3):
            add_at(breaths, start, (sound * shape * level * float(rng.uniform(0.15, 0.6))).astype(np.float32))
    return breaths


def _finish(kind: str, audio: np.ndarray, cast: _Cast, score: Score | None, line: Sequence[Sung] = ()) -> Performance:
    notes = _notes(line, score) if score is not None else []
    return Performance(kind, audio, [r.path for r in cast.recordings], cast.speaker.name, score, notes)


def _sung(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    cast, score = _cast(speakers, rng), _score(seed, rng)
    line = _melody(score, cast.low, cast.high, rng)
    done = _finish("sung", _sing(line, cast, score, seed, "lead"), cast, score, line)
    if rng.random() < 0.25:
        done.companions["double"] = _sing(line, cast, score, seed, "double", 0.02)
    if rng.random() < 0.3:
        other = replace(
            cast, delivery=replace(cast.delivery, formants=cast.delivery.formants * rng.uniform(0.94, 1.06))
        )
        steps = int(rng.choice([2, -2, 2, -5, 4]))
        done.companions["harmony"] = _sing(harmony_of(line, score.scale, steps), other, score, seed, "harmony", 0.02)
    return done


def _tuned(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """Pitch corrected hard: it jumps from note to note and stands still."""
    cast, score = _cast(speakers, rng), _score(seed, rng)
    still = replace(cast.singer, glide_s=0.006, vibrato_cents=0.0, drift_cents=0.5, jitter_cents=0.3, scoop=0.0)
    line = _melody(score, cast.low, cast.high, rng)
    cast = replace(cast, singer=still)
    return _finish("tuned", _sing(line, cast, score, seed, "lead", 0.004), cast, score, line)


def _sung_syllables(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """A melody on sung syllables, or on sung vowels."""
    cast, score = _cast(speakers, rng), _score(seed, rng)
    marked = speakers.of_kind("sung-syllable")
    if rng.random() < 0.25 or not marked:
        marked = [r for r in speakers.of_kind("sung-vowel") if r.row.get("loop") and "voices" not in r.path]
    chosen = [marked[int(index)] for index in rng.permutation(len(marked))[:14]]
    syllables = speakers.syllables(chosen) if chosen else []
    if len(syllables) < 3:
        return _sung(speakers, seed, rng)
    formants = float(rng.uniform(0.84, 1.18))
    female = str(chosen[0].row.get("sex") or "f")[0] == "f"
    voice, (low, high) = _register((1.16 if female else 1.0) * formants, rng)
    speaker = Speaker(str(chosen[0].row.get("speaker") or chosen[0].source), female, tuple(chosen))
    delivery = replace(cast.delivery, formants=formants, effort_db=float(rng.uniform(-2, 3)), raw_consonants=True)
    cast = _Cast(speaker, chosen, syllables, delivery, random_singer(voice, "sung", rng), low, high)
    line = _melody(score, low, high, rng)
    return _finish("sung", _sing(line, cast, score, seed, "lead"), cast, score, line)


def _resung(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """A singer's own phrase as it is, or moved in pitch, formants and time into another singer's."""
    phrases = speakers.of_kind("sung-phrase")
    if not phrases:
        return _sung(speakers, seed, rng)
    recording = phrases[seed % len(phrases)]
    voice = speakers.voice(recording)
    audio = voice.audio
    if rng.random() < 0.8:
        delivery = Delivery(
            formants=float(rng.uniform(0.84, 1.2)), effort_db=float(rng.uniform(-2, 4)), raw_consonants=False
        )
        shift = 12 * np.log2(delivery.formants) * 1.2 + float(rng.normal(0, 2.0))
        audio = revoice(voice, delivery, float(shift), float(rng.uniform(0.85, 1.2)), rng)
    name = str(recording.row.get("speaker") or recording.source)
    return Performance("sung", audio, [recording.path], name)


def _backing(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """Held chords of three or four voices: resampled choirs, or single voices through the vocoder."""
    score = _score(seed, rng)
    vowels = [r for r in speakers.of_kind("sung-vowel") if r.row.get("loop") and r.row.get("note")]
    if not vowels:
        return _sung(speakers, seed, rng)
    low, count = int(rng.integers(48, 62)), int(rng.choice([2, 3, 4]))
    lines = [[n for s in score.sections for n in backing_chords(s, score, low, voice, "oo")] for voice in range(count)]
    samples = int(score.duration_s * SAMPLE_RATE)
    total = np.zeros(samples, dtype=np.float32)
    used: list[Recording] = []
    groups = bool(rng.random() < 0.5)
    syllable = str(rng.choice(["aa", "oo"]))
    for voice, line in enumerate(lines):
        female = rng.random() < 0.5
        pool = [
            r for r in vowels
            if ("voices" in r.path) == groups and (r.row.get("syllable") == syllable or rng.random() < 0.1)
            and str(r.row.get("sex") or "m")[0] == ("f" if female else "m")
        ] or vowels  # fmt: skip
        used += pool
        if groups:
            total += choir(line, pool, speakers, score, samples, stream(seed, "voice", voice))
            continue
        middle = float(np.median([note.pitch for note in line]))
        nearest = sorted(pool, key=lambda r: abs(r.row["note"] - middle))[:2]
        syllables = speakers.syllables(nearest)
        if syllables:
            delivery = Delivery(formants=float(rng.uniform(0.88, 1.14)), effort_db=float(rng.uniform(-3, 2)))
            singer = random_singer("alto" if female else "tenor", "sung", stream(seed, "singer", voice))
            total += sing_recorded(
                line, syllables, delivery, singer, score, samples, stream(seed, "voice", voice), 0.02
            )
    notes = [note for line in lines for note in _notes(line, score)]
    return Performance("backing", total, sorted({r.path for r in used}), "choir", score, notes)


def _rap(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    cast, score = _cast(speakers, rng, "rap"), _score(seed, rng)
    words, line = lexicon(rng, 24), []
    for section in score.sections:
        line += rap_line(section, score, cast.low, words, rng)
    spoken = 12 * np.log2((185.0 if cast.speaker.female else 115.0) / 440) + 69 + 12 * np.log2(cast.delivery.formants)
    shift = spoken + float(rng.normal(1.5, 2.0)) - float(np.median([note.pitch for note in line]))
    line = [replace(note, pitch=note.pitch + shift) for note in line]
    cast = replace(cast, delivery=replace(cast.delivery, rap=True, effort_db=float(rng.uniform(0, 5))))
    done = _finish("rap", _sing(line, cast, score, seed, "lead", 0.008), cast, score)
    if rng.random() < 0.25:
        done.companions["double"] = _sing(line, cast, score, seed, "double", 0.015)
    return done


def _spoken(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """Sentences as they were said, or in another voice, each begun on a beat."""
    cast, score = _cast(speakers, rng), _score(seed, rng)
    changed = rng.random() < 0.6
    beat_s, clock_s = 60.0 / score.tempo_bpm, 0.0
    audio = np.zeros(int(score.duration_s * SAMPLE_RATE), dtype=np.float32)
    for recording in cast.recordings:
        voice = speakers.voice(recording)
        sound = voice.audio
        if changed:
            shift = 12 * np.log2(cast.delivery.formants) * float(rng.uniform(0.7, 1.5))
            sound = revoice(voice, cast.delivery, shift, float(rng.uniform(0.92, 1.15)), rng)
        sound = _trimmed(sound)
        if clock_s + 1.0 > score.duration_s:
            break
        add_at(audio, int(clock_s * SAMPLE_RATE), sound)
        clock_s += beat_s * np.ceil((len(sound) / SAMPLE_RATE + float(rng.uniform(0.1, 0.9))) / beat_s)
    end = int(min(clock_s, score.duration_s) * SAMPLE_RATE)
    return _finish("spoken", _faded(audio[:end]), cast, score)


def _whisper(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    cast, score = _cast(speakers, rng), _score(seed, rng)
    cast = replace(cast, delivery=replace(cast.delivery, whisper=True, rap=True, evenness=0.9))
    words, line = lexicon(rng, 24), []
    for section in score.sections:
        line += rap_line(section, score, 45, words, rng)
    return _finish("whisper", _sing(line, cast, score, seed, "lead"), cast, score)


def _ad_lib(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """Shouts, laughter, and single words held or thrown in."""
    cast, score = _cast(speakers, rng), _score(seed, rng)
    sounds = speakers.of_kind("vocal-sound")
    if sounds and rng.random() < 0.5:
        recording = sounds[seed % len(sounds)]
        voice = speakers.voice(recording)
        factor = float(rng.uniform(0.85, 1.2))
        audio = resampled(voice.audio, factor) if rng.random() < 0.7 else voice.audio
        return Performance("ad-lib", audio, [recording.path], recording.source)
    line, words = [], lexicon(rng, 6)
    for bar in range(int(score.duration_s * score.tempo_bpm / 60 / score.bar_beats)):
        beat = bar * score.bar_beats + float(rng.choice([1.5, 2.0, 2.5, 3.0]))
        for step in range(int(rng.choice([0, 1, 1, 2, 3]))):
            pitch = int(rng.integers(cast.low + 4, cast.high))
            pitch = min(score.chord_at(beat).pitch_classes, key=lambda c: (c - pitch) % 12) + 12 * (pitch // 12)
            text = words[int(rng.integers(6))]
            line.append(Sung(beat + 0.5 * step, 0.5, float(np.clip(pitch, cast.low, cast.high)), 0.9, *text, step == 0))
    return _finish("ad-lib", _sing(line, cast, score, seed, "lead"), cast, score, line)


def _chopped(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """A sung line cut into pieces that repeat on the grid, some pitched, some backwards."""
    done = _sung(speakers, seed, rng)
    score = done.score
    assert score is not None
    step = 15.0 / score.tempo_bpm
    starts = [start for start, end, _ in done.notes if end - start > 0.15 and end < score.duration_s - 0.5]
    if not starts:
        return done
    pieces = []
    for start in rng.choice(starts, size=min(4, len(starts)), replace=False):
        first = int((start - 0.05) * SAMPLE_RATE) if start > 0.06 else 0
        piece = done.audio[first : first + int(float(rng.uniform(0.15, 0.6)) * SAMPLE_RATE)]
        piece = resampled(piece, float(2.0 ** (rng.choice([0, 0, 0, 3, 5, 7, 12, -5]) / 12)))
        pieces.append(_faded(piece[::-1].copy() if rng.random() < 0.15 else piece))
    pattern = [int(rng.integers(len(pieces))) if rng.random() < 0.5 else -1 for _ in range(16)]
    pattern[0] = 0
    audio = np.zeros_like(done.audio)
    for index in range(int(score.duration_s / step) - 3):
        choice = pattern[index % 16] if rng.random() < 0.9 else int(rng.integers(-1, len(pieces)))
        if choice < 0:
            continue
        ahead = next((n for n in range(1, 17) if pattern[(index + n) % 16] >= 0), 16)
        add_at(audio, int(index * step * SAMPLE_RATE), _faded(pieces[choice][: int(ahead * step * SAMPLE_RATE)]))
    return replace(done, kind="chopped", audio=audio, notes=[], companions={})


def _vocoded(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """Words on the buzz of chords: several voices of fixed pitch with the same vowels."""
    cast, score = _cast(speakers, rng), _score(seed, rng)
    cast = replace(
        cast,
        singer=replace(cast.singer, glide_s=0.003, vibrato_cents=0.0, drift_cents=0.1, jitter_cents=0.05, scoop=0.0),
        delivery=replace(cast.delivery, buzz=True, effort_db=float(rng.uniform(3, 9))),
    )
    line = _melody(score, cast.low, cast.high, rng)
    total = np.zeros(int(score.duration_s * SAMPLE_RATE), dtype=np.float32)
    for voice in range(int(rng.choice([1, 3, 3, 4]))):
        chord = []
        for note in line:
            classes = score.chord_at(note.beat).pitch_classes
            pitch = 12 * (cast.low // 12) + classes[voice % len(classes)] + 12 * (voice > 2)
            chord.append(replace(note, pitch=float(pitch if pitch >= cast.low - 5 else pitch + 12)))
        total += sing_recorded(
            chord, cast.syllables, cast.delivery, cast.singer, score, len(total), stream(seed, "vocoder"), 0.0
        )
    return _finish("vocoded", total, cast, score)


def _pitched(speakers: Speakers, seed: int, rng: np.random.Generator) -> Performance:
    """A whole take played faster or slower than it was sung."""
    done = _sung(speakers, seed, rng)
    semitones = float(rng.choice([-5, -4, -3, 3, 4, 5, 7]))
    factor = 2.0 ** (semitones / 12)
    assert done.score is not None
    score = replace(done.score, tempo_bpm=done.score.tempo_bpm * factor, tonic=int((done.score.tonic + semitones) % 12))
    return replace(done, kind="pitched", audio=resampled(done.audio, factor), score=score, notes=[], companions={})


def _trimmed(audio: np.ndarray) -> np.ndarray:
    """Without the silence at both ends, faded."""
    loud = np.flatnonzero(np.abs(audio) > 0.02 * np.max(np.abs(audio)))
    if not len(loud):
        return audio
    return _faded(audio[max(loud[0] - 600, 0) : loud[-1] + 2000])


def _faded(audio: np.ndarray, seconds: float = 0.006) -> np.ndarray:
    """With a short fade at both ends, so that a cut does not click."""
    length = min(int(seconds * SAMPLE_RATE), len(audio) // 2)
    output = audio.copy()
    if length:
        rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
        output[:length] *= rise
        output[-length:] *= rise[::-1]
    return output


_MAKERS: dict[str, Callable[[Speakers, int, np.random.Generator], Performance]] = {
    "sung": _sung, "tuned": _tuned, "sung-syllables": _sung_syllables, "resung": _resung, "backing": _backing,
    "rap": _rap, "spoken": _spoken, "whisper": _whisper, "ad-lib": _ad_lib, "chopped": _chopped, "vocoded": _vocoded,
    "pitched": _pitched,
}  # fmt: skip
