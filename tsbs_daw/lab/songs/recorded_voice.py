"""Sing or rap a line with recorded syllables: the consonants as recorded, the vowels stretched to the notes.

The pitch comes from the melody (or, rapped, from the speaker), the sound of the vowels from the recording through the
WORLD vocoder. F frames of the song, HOP samples apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsbs_daw.lab.songs.dsp import (
    HOP,
    N_FFT,
    SAMPLE_RATE,
    VoiceFrames,
    gain,
    midi_hz,
    move_formants,
    stream,
    synthesise_voice,
)
from tsbs_daw.lab.songs.score import Part, Score, Sung
from tsbs_daw.lab.songs.speakers import Speakers, Syllable, Voice, limited, samples_of
from tsbs_daw.lab.songs.voice import FRAME_S, Singer, pitch_curve, random_singer, smooth

SHORTEST_NOTE_S = 0.12  # a shorter note joins the one before it
LONGEST_CONSONANT_S = 0.22
LEAST_CORE = 4  # frames of vowel that a syllable keeps, however short its note
RAP_STRETCH = 1.5  # speech held longer than this sounds sung
TRACTS = {"soprano": 1.22, "alto": 1.15, "tenor": 1.03, "baritone": 0.98, "bass": 0.9}  # formants relative to a man's
FORMANTS = (0.82, 1.22)  # how far those of a speaker can be moved
FADE_S = 0.004  # between a recorded consonant and a synthesised vowel


@dataclass(frozen=True)
class Delivery:
    """How a line is delivered with someone's syllables."""

    formants: float = 1.0  # their frequencies are multiplied by this
    rap: bool = False  # the speaker's own intonation, moved to the line's mean pitch
    whisper: bool = False
    effort_db: float = 0.0  # brilliance above 2 kHz, where a sung voice has more than a spoken one
    evenness: float = 0.6  # how far weak syllables are raised to the level of strong ones
    raw_consonants: bool = True  # unvoiced parts are copied from the recording
    buzz: bool = False  # vowels without any breath, as a vocoder sings them


def sing_live(
    part: Part, score: Score, samples: int, speakers: Speakers, rng: np.random.Generator, loose_s: float
) -> np.ndarray:
    """A cast part: (samples,) float32.

    Args:
        part: its timbre names the recordings
        score: where the beats are
        samples: length
        speakers: of the pack that the part was cast from
        rng: what differs from take to take
        loose_s: how far syllables stray from the beat
    """
    timbre = part.timbre
    by_path = {recording.path: recording for recording in speakers.of_kind("speech")}
    recordings = [by_path[path] for path in timbre["recordings"]]
    speaker = next(one for one in speakers.spoken if one.name == timbre["speaker"])
    personal = stream(timbre["seed"], "formants")
    wanted = TRACTS[timbre["voice"]] * float(personal.uniform(0.94, 1.06)) / speaker.tract
    airy = limited(recordings)
    delivery = Delivery(
        formants=float(np.clip(wanted, *FORMANTS)),
        rap=timbre["rap"],
        effort_db=timbre["effort_db"],
        evenness=timbre["evenness"],
        raw_consonants=not airy,
    )
    singer = random_singer(timbre["voice"], timbre["kind"], stream(timbre["seed"], "singer"))
    if timbre["tuned"]:
        singer = replace(singer, glide_s=0.006, vibrato_cents=0.0, drift_cents=0.5, jitter_cents=0.3, scoop=0.0)
    syllables = speakers.syllables(recordings, airy)
    return sing_recorded(part.events, syllables, delivery, singer, score, samples, rng, loose_s)


def sing_recorded(
    line: Sequence[Sung],
    syllables: Sequence[Syllable],
    delivery: Delivery,
    singer: Singer,
    score: Score,
    samples: int,
    rng: np.random.Generator,
    loose_s: float = 0.012,
) -> np.ndarray:
    """Sing a line with recorded syllables, in order and cyclically: (samples,) float32.

    Args:
        line: The notes; their consonants and vowels only determine which phrases have the same words.
        syllables: At least one.
        delivery: Way of singing.
        singer: Vibrato, glides and drift.
        score: The song, with its beats.
        samples: Length of the result.
        rng: Random numbers, which vary from take to take.
        loose_s: Deviation of syllables from the beat.
    """
    plan = _Plan(samples // HOP + 2, syllables, delivery)
    words = _Words(len(syllables))
    groups = _groups(line, score)
    first = 0
    while first < len(groups):
        last = first + 1
        while last < len(groups) and not groups[last][0].phrase_start:
            last += 1
        start = words.start_of(groups[first:last])
        for order, group in enumerate(groups[first:last]):
            following = groups[first + order + 1][0] if first + order + 1 < len(groups) else None
            number = (start + order) % len(syllables)
            lead = plan.onset_frames((number + 1) % len(syllables))
            plan.say(group, number, (following, lead), score, rng, loose_s)
        first = last
    return _synthesise(plan, _pitch(plan, singer, rng), samples, rng)


def revoice(voice: Voice, delivery: Delivery, semitones: float, speed: float, rng: np.random.Generator) -> np.ndarray:
    """A whole recording with its own words and melody in another voice: (samples,) float32.

    Args:
        voice: the recording
        delivery: how; its formants make another singer of the same
        semitones: added to the pitch
        speed: 1 keeps the time
        rng: of small variations of level
    """
    whole = Syllable(voice, 0, (0, 0), len(voice.frames) - 1, 0.0)
    frames = int(len(voice.frames) / speed)
    plan = _Plan(frames, [whole], delivery)
    plan.syllable[:] = 0
    plan.moment[:] = np.minimum(np.arange(frames) * speed, len(voice.frames) - 1)
    plan.level[:] = 1.0
    pitch = _spoken_pitch(plan)
    return _synthesise(plan, midi_hz(pitch + semitones), frames * HOP, rng)


class _Words:
    """Phrases with the same text get the same syllables."""

    def __init__(self, count: int):
        self._count, self._next = count, 0
        self._known: dict[tuple, int] = {}

    def start_of(self, groups: list[list[Sung]]) -> int:
        text = tuple((group[0].onset, group[0].vowel, group[0].coda) for group in groups)
        if text not in self._known:
            self._known[text] = self._next
            self._next = (self._next + len(groups)) % self._count
        return self._known[text]


def _groups(line: Sequence[Sung], score: Score) -> list[list[Sung]]:
    """Notes that share a syllable: two notes on one vowel, and notes too short for a syllable of their own."""
    groups: list[list[Sung]] = []
    for note in line:
        length_s = score.seconds(note.beat + note.beats) - score.seconds(note.beat)
        slurred = not note.onset and groups and not groups[-1][-1].coda and groups[-1][-1].vowel[-1:] == note.vowel
        touching = groups and note.beat - groups[-1][-1].beat - groups[-1][-1].beats < 0.05
        if groups and touching and not note.phrase_start and (slurred or length_s < SHORTEST_NOTE_S):
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups


class _Plan:
    """Which frame of which syllable sounds in each frame of the song: (F,) each.

    syllable, moment: number of the syllable, -1 where none; frame within its recording, fractions included
    level:            linear
    pitch, since_s:   MIDI pitch as written, and the time since the note began; NaN where nothing is sung
    """

    def __init__(self, frames: int, syllables: Sequence[Syllable], delivery: Delivery):
        self.frames, self.syllables, self.delivery = frames, syllables, delivery
        self.syllable, self.moment, self.level = np.full(frames, -1), np.zeros(frames), np.zeros(frames)
        self.pitch, self.since_s = np.full((2, frames), np.nan)
        self._usual_db = float(np.median([syllable.level_db for syllable in syllables]))
        self._end = 0

    def onset_frames(self, number: int) -> int:
        """How long a syllable's first consonants are."""
        syllable = self.syllables[number]
        return min(syllable.core[0] - syllable.begin, int(LONGEST_CONSONANT_S / FRAME_S))

    def say(
        self,
        notes: list[Sung],
        number: int,
        following: tuple[Sung | None, int],
        score: Score,
        rng: np.random.Generator,
        loose_s: float,
    ) -> None:
        """Lay a syllable on its notes, the consonants before the vowel ahead of the beat.

        Args:
            notes: one or more, sung in one go
            number: of the syllable
            following: the next note, and how long its consonants are
            score: where the beats are
            rng: what differs from take to take
            loose_s: how far syllables stray from the beat
        """
        syllable, late_s = self.syllables[number], float(rng.normal(0, loose_s))
        first = int((score.seconds(notes[0].beat) + late_s) / FRAME_S)
        last = int((score.seconds(notes[-1].beat + notes[-1].beats) + late_s) / FRAME_S)
        longest = int(LONGEST_CONSONANT_S / FRAME_S)
        before = min(self.onset_frames(number), max(first - max(self._end, 2), 0))
        after = min(syllable.end - syllable.core[1], longest)
        follower, lead = following
        if follower is not None:  # leave time for the consonants before the next beat
            gap = int(score.seconds(follower.beat) / FRAME_S) - first
            room = gap - min(lead, gap // 3)
            after = min(after, max(room // 3, 1))
            last = min(last, first + max(room - after, LEAST_CORE))
        if self.delivery.rap:
            last = min(last, first + int(RAP_STRETCH * max(syllable.core[1] - syllable.core[0], 8)))
        first = max(first, self._end)
        last = max(last, first + LEAST_CORE)
        if first < before + 2 or last + after >= self.frames - 4:
            return
        moments = _moments(syllable, before, last - first, after, rng)
        span = slice(first - before, first - before + len(moments))
        self.syllable[span], self.moment[span] = number, moments
        self.level[span] = self._level(syllable, notes[0].velocity)
        self.level[[span.start, span.stop - 1]] *= 0.4
        self._write_pitch(notes, span, first, score)
        self._end = span.stop

    def _level(self, syllable: Syllable, velocity: float) -> float:
        raised_db = self.delivery.evenness * (self._usual_db - syllable.level_db)
        return velocity * gain(float(np.clip(raised_db, -5.0, 6.0)))

    def _write_pitch(self, notes: list[Sung], span: slice, first: int, score: Score) -> None:
        self.pitch[span] = notes[0].pitch
        self.since_s[first : span.stop] = np.arange(span.stop - first) * FRAME_S
        for note in notes[1:]:
            begin = int(score.seconds(note.beat) / FRAME_S)
            if begin < span.stop:
                self.pitch[begin : span.stop] = note.pitch
                self.since_s[begin : span.stop] = np.arange(span.stop - begin) * FRAME_S


def _moments(syllable: Syllable, before: int, held: int, after: int, rng: np.random.Generator) -> np.ndarray:
    """For each frame the frame of the recording: consonants at their own speed, cut where they are far too long.

    A held vowel moves on slowly, to and fro by up to a frame, as no voice stands still.
    """
    core_first, core_last = syllable.core
    shape = np.linspace(0, 1, max(held, 2))
    vowel = core_first + (core_last - core_first) * (0.6 * shape + 0.4 * shape**3)
    if held > 2 * (core_last - core_first):
        sway = smooth(rng.standard_normal(len(vowel)), 9) * np.hanning(len(vowel) + 2)[1:-1]
        vowel = np.clip(vowel + 1.5 * sway, core_first, core_last)
    onset = core_first - before + np.arange(before, dtype=float)
    coda = core_last + 1.0 + np.arange(after)
    return np.concatenate([onset, vowel, coda])


def _synthesise(plan: _Plan, f0_hz: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    active = np.flatnonzero(plan.syllable >= 0)
    output = np.zeros(samples, dtype=np.float32)
    if not len(active):
        return output
    first, end = max(active[0] - 4, 0), min(active[-1] + 5, plan.frames)
    frames, voiced = _gather(plan, first, end)
    if plan.delivery.whisper:
        voiced = np.zeros_like(voiced)
    frames = replace(frames, f0_hz=np.where(voiced, np.clip(f0_hz[first:end], 55.0, 1200.0), 0.0))
    sound = synthesise_voice(frames)
    if plan.delivery.raw_consonants and not plan.delivery.whisper:
        _copy_consonants(sound, plan, voiced, first)
    level = smooth(plan.level, 5)[first:end]
    level = level * (1.0 + 0.03 * smooth(rng.standard_normal(len(level)), 9))
    sound *= np.interp(np.arange(len(sound)) / HOP, np.arange(len(level)), level).astype(np.float32)
    length = min(len(sound), samples - first * HOP)
    output[first * HOP : first * HOP + length] = sound[:length]
    return output


def _gather(plan: _Plan, first: int, end: int) -> tuple[VoiceFrames, np.ndarray]:
    """Frames first .. end of the song without their pitch, and which of them are voiced."""
    count = end - first
    sample = plan.syllables[0].voice.frames
    log_power = np.full((count, N_FFT // 2 + 1), -34.0, dtype=np.float32)
    noise_db = np.zeros((count, sample.noise_db.shape[1]), dtype=np.float32)
    voiced = np.zeros(count, dtype=bool)
    for number, syllable in enumerate(plan.syllables):
        mine = np.flatnonzero(plan.syllable[first:end] == number)
        if not len(mine):
            continue
        source = syllable.voice.frames
        moment = np.clip(plan.moment[first + mine], 0, len(source) - 1)
        low = np.minimum(moment.astype(int), len(source) - 2)
        share = (moment - low)[:, None].astype(np.float32)
        log_power[mine] = source.log_power[low] * (1 - share) + source.log_power[low + 1] * share
        noise_db[mine] = source.noise_db[low] * (1 - share) + source.noise_db[low + 1] * share
        in_core = (moment >= syllable.core[0]) & (moment <= syllable.core[1])
        voiced[mine] = in_core | (source.f0_hz[np.round(moment).astype(int)] > 0)
    log_power = move_formants(log_power, plan.delivery.formants) + _effort(plan.delivery)
    if plan.delivery.buzz:
        noise_db = noise_db - 40.0
    return VoiceFrames(np.zeros(count), log_power, noise_db), voiced


def _effort(delivery: Delivery) -> np.ndarray:
    """What is added to the envelope (B,), as natural logarithm of power: brilliance, and for a whisper less bass."""
    hz = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
    singing = delivery.effort_db * np.exp(-0.5 * (np.log2(np.maximum(hz, 20) / (2900 * delivery.formants)) / 0.7) ** 2)
    singing += 0.5 * delivery.effort_db / (1 + (2200 / np.maximum(hz, 1)) ** 2)
    if delivery.whisper:
        singing = singing - 18.0 / (1 + (hz / 700) ** 2)
    return (singing / 10 * np.log(10)).astype(np.float32)


def _pitch(plan: _Plan, singer: Singer, rng: np.random.Generator) -> np.ndarray:
    """f0 (F,) in Hz: the melody, or the speaker's intonation around the melody's mean."""
    if not np.any(plan.syllable >= 0):
        return np.zeros(plan.frames)
    if not plan.delivery.rap:
        return midi_hz(pitch_curve(plan.pitch, plan.since_s, singer, rng))
    spoken = _spoken_pitch(plan)
    return midi_hz(np.nanmedian(plan.pitch) + np.clip(smooth(spoken, 5) - np.median(spoken), -9, 9))


def _spoken_pitch(plan: _Plan) -> np.ndarray:
    """The recordings' own pitch (F,) as MIDI numbers, carried on where nothing is voiced."""
    spoken = np.full(plan.frames, np.nan)
    for number, syllable in enumerate(plan.syllables):
        mine = np.flatnonzero(plan.syllable == number)
        last = len(syllable.voice.frames) - 1
        f0_hz = syllable.voice.frames.f0_hz[np.clip(np.round(plan.moment[mine]).astype(int), 0, last)]
        spoken[mine] = np.where(f0_hz > 0, 12 * np.log2(np.maximum(f0_hz, 1) / 440) + 69, np.nan)
    known = np.flatnonzero(~np.isnan(spoken))
    return np.interp(np.arange(plan.frames), known, spoken[known]) if len(known) else np.full(plan.frames, 52.0)


def _copy_consonants(sound: np.ndarray, plan: _Plan, voiced: np.ndarray, first: int) -> None:
    """Put the recording itself where it runs unvoiced and at its own speed."""
    count = len(voiced)
    number, moment = plan.syllable[first : first + count], plan.moment[first : first + count]
    joined = (np.diff(number) == 0) & (np.abs(np.diff(moment) - 1.0) < 1e-6) & ~voiced[1:] & ~voiced[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], joined.astype(int), [0]])))
    fade = int(FADE_S * SAMPLE_RATE)
    rise = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade).astype(np.float32)
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        start, source = begin * HOP, samples_of(moment[begin])
        audio = plan.syllables[number[begin]].voice.audio
        length = min((end - begin) * HOP, len(audio) - source, len(sound) - start)
        if source < 0 or length < 2 * fade + 8:
            continue
        keep = np.zeros(length, dtype=np.float32)
        keep[:fade], keep[-fade:] = np.sqrt(1 - rise**2), rise
        take = np.ones(length, dtype=np.float32)
        take[:fade], take[-fade:] = rise, rise[::-1]
        span = slice(start, start + length)
        sound[span] = sound[span] * keep + audio[source : source + length] * take
