"""Syllables spoken by espeak-ng and sung on a melody: an optional voice back end.

Each syllable of a song is spoken once, at a low steady pitch, and analysed into frames (HOP samples apart) of a
spectral envelope without pitch, kept as a short cepstrum, and a degree of voicing. Singing combines the spectra of
speech with the pitch and the length of song.

F frames, Q cepstral coefficients, B = N_FFT // 2 + 1 bins.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import soundfile as sf
from pedalboard import HighShelfFilter

from tsbs_daw.core.errors import OutputError, UsageError
from tsbs_daw.lab.songs.dsp import HOP, N_FFT, SAMPLE_RATE, filter_frames, midi_hz
from tsbs_daw.lab.songs.mixing import process
from tsbs_daw.lab.songs.score import Score, Sung
from tsbs_daw.lab.songs.voice import FRAME_S, Singer, pitch_curve, pulses, smooth

ANALYSIS = 1536  # samples per analysis window: three periods of the lowest speaker
ENVELOPE_TOP_HZ = 9500.0  # espeak-ng speaks at 22.05 kHz; above this the envelope is continued
_VARIANT_NAMES = """
    f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alicia Andrea Annie aunty belinda linda steph anika adam Alex Andy
    benjamin boris caleb david ed Henrique Hugo john max Michael mike miguel norbert pablo paul pedro quincy rob
    robert sandro shelby travis victor zac
"""
VARIANTS = ("", *_VARIANT_NAMES.split())
LANGUAGES = ("en-us", "en-gb", "it", "es", "de", "fr-fr", "pt-br", "nl", "sv", "fi", "pl", "ro", "id", "tr")
TRAINING_VOICES = tuple(f"{language}+{variant}".rstrip("+") for language in LANGUAGES for variant in VARIANTS)
# Another language, and another synthesis method inside espeak-ng (Klatt) than every training voice has.
HELD_OUT_VOICES = ("cs+klatt3",)

_SPELLING = {
    "ah": "a", "ae": "e", "eh": "e", "ee": "i", "ih": "i", "oh": "o", "oo": "u", "uh": "a", "aw": "o", "er": "e",
    "y": "j", "sh": "sh", "ch": "ch", "th": "t", "dh": "d", "j": "j", "ng": "n",
}  # fmt: skip
_MNEMONICS = {
    "ah": "A:", "ae": "a", "eh": "E", "ee": "i:", "ih": "I", "oh": "oU", "oo": "u:", "uh": "V", "aw": "O:", "er": "3:",
    "y": "j", "sh": "S", "ch": "tS", "th": "T", "dh": "D", "j": "dZ", "ng": "N",
}  # fmt: skip


@dataclass(frozen=True)
class Spoken:
    """An analysed syllable. The vowel's core is frames core[0] .. core[1]; before and after it are consonants."""

    cepstra: np.ndarray  # (F, Q) float32, of the natural logarithm of the envelope
    voiced: np.ndarray  # (F,) 0..1
    core: tuple[int, int]


def require_espeak() -> None:
    """Check that espeak-ng is installed.

    Raises:
        UsageError: It is not.
    """
    if shutil.which("espeak-ng") is None:
        raise UsageError("espeak-ng is not installed; install it (Debian: espeak-ng) or use --timbres builtin.")


def speak(speaker: str, syllable: tuple[tuple, tuple, tuple], tract: float = 1.0) -> Spoken:
    """Speak and analyse one syllable (onset, vowel, coda).

    Args:
        speaker: A voice of espeak-ng.
        syllable: Onset, vowel and coda.
        tract: Factor for the frequencies of the envelope.

    Raises:
        UsageError: espeak-ng is not installed.
        OutputError: It failed, or its output is silent.
    """
    require_espeak()
    onset, vowel, coda = syllable
    names = (*onset, *vowel, *coda)
    if speaker.startswith("en"):
        at = len(onset)
        sounds = [_MNEMONICS.get(name, name) for name in names]
        text = "[[" + "".join(sounds[:at]) + "'" + "".join(sounds[at:]) + "]]"
    else:
        text = "".join(_SPELLING.get(name, name) for name in names)
    command = ["espeak-ng", "-v", speaker, "-s", "95", "-p", "25", "-z", "--stdout", text]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise OutputError(
            f"espeak-ng did not finish speaking {text!r}: {problem}; check its installation."
        ) from problem
    if done.returncode != 0 or len(done.stdout) < 1000:
        raise OutputError(
            f"espeak-ng could not speak {text!r} as {speaker}: {done.stderr.decode(errors='replace').strip()[-200:]}."
        )
    audio, rate = sf.read(io.BytesIO(_whole_header(done.stdout)), dtype="float32")
    if not np.any(audio):
        raise OutputError(f"espeak-ng was silent for {text!r} as {speaker}; check its installation.")
    return analyse(_to_rate(audio, rate), tract)


def _whole_header(data: bytes) -> bytes:
    """espeak-ng writes lengths it does not know into a piped header; put the true ones."""
    size = len(data)
    return data[:4] + (size - 8).to_bytes(4, "little") + data[8:40] + (size - 44).to_bytes(4, "little") + data[44:]


def _to_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    """Band-limited resampling of a short sound by its whole spectrum."""
    length = round(len(audio) * SAMPLE_RATE / rate)
    spectrum = np.fft.rfft(audio)
    wider = np.zeros(length // 2 + 1, dtype=np.complex128)
    count = min(len(wider), len(spectrum))
    wider[:count] = spectrum[:count]
    return (np.fft.irfft(wider, n=length) * (length / len(audio))).astype(np.float32)


def analyse(audio: np.ndarray, tract: float = 1.0) -> Spoken:
    """(samples,) speech at 44.1 kHz -> cepstra, voicing and the vowel's core."""
    loud = np.flatnonzero(np.abs(audio) >= 0.01 * np.max(np.abs(audio)))
    audio = audio[loud[0] : loud[-1] + 1] / max(float(np.max(np.abs(audio))), 1e-6)
    padded = np.pad(audio, ANALYSIS // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, ANALYSIS)[::HOP]
    weight = np.hanning(ANALYSIS).astype(np.float32)
    spectra = np.abs(np.fft.rfft(windows * weight, n=N_FFT, axis=1)) + 1e-5
    voiced, period = _voicing(windows)
    level = np.sqrt(np.mean(spectra[:, 5:140] ** 2, axis=1))
    # A creaky or gliding vowel has no clear period, but its energy is at low frequencies, so it counts as a vowel.
    low = np.sum(spectra[:, 4:60] ** 2, axis=1) / np.sum(spectra[:, 4:440] ** 2, axis=1)
    voiced = np.maximum(voiced, np.clip((low - 0.6) / 0.2, 0, 1) * (level > 0.08 * level.max()))
    voiced *= np.clip((low - 0.05) / 0.15, 0, 1)  # and a hiss over some hum is still a hiss
    logarithm = _continue_above(np.log(spectra))
    if abs(tract - 1.0) > 1e-3:
        bins = np.arange(logarithm.shape[1])
        logarithm = np.stack([np.interp(bins / tract, bins, row) for row in logarithm])
    keep = int(np.clip(0.6 * period, 60, 260))
    cepstra = np.fft.irfft(logarithm, n=N_FFT, axis=1)[:, :keep]
    cepstra *= np.hanning(2 * keep + 1)[keep:-1] ** 0.5
    level = level * np.clip(voiced, 0.05, 1)
    peak = int(np.argmax(np.convolve(level, np.ones(5) / 5, mode="same")))
    first = last = peak
    while first > 0 and level[first - 1] > 0.5 * level[peak]:
        first -= 1
    while last < len(level) - 1 and level[last + 1] > 0.5 * level[peak]:
        last += 1
    voiced[first : last + 1] = 1.0
    return Spoken(cepstra.astype(np.float32), voiced.astype(np.float32), (first, max(last, first + 1)))


def _voicing(windows: np.ndarray) -> tuple[np.ndarray, float]:
    """Degree of voicing per frame from the autocorrelation peak, and the median period in samples."""
    shortest, longest = 90, 800  # 490 .. 55 Hz
    power = np.abs(np.fft.rfft(windows, n=2 * ANALYSIS, axis=1)) ** 2
    power[:, 200:] = 0.0  # below 2.9 kHz
    correlation = np.fft.irfft(power, axis=1)
    lags = np.arange(longest)
    fair = correlation[:, :longest] / (correlation[:, :1] + 1e-9) / (1.0 - lags / ANALYSIS)
    best = shortest + np.argmax(fair[:, shortest:longest], axis=1)
    strength = fair[np.arange(len(fair)), best]
    voiced = np.clip((strength - 0.4) / 0.35, 0.0, 1.0)
    sure = best[voiced > 0.8]
    return voiced, float(np.median(sure)) if len(sure) else 300.0


def _continue_above(logarithm: np.ndarray) -> np.ndarray:
    """Carry the envelope on above what espeak-ng gives, falling by 9 dB per octave."""
    edge = int(ENVELOPE_TOP_HZ / SAMPLE_RATE * N_FFT)
    bins = np.arange(logarithm.shape[1])
    base = logarithm[:, edge - 60 : edge].mean(axis=1, keepdims=True)
    result = logarithm.copy()
    result[:, edge:] = base - (9.0 / 8.686) * np.log2(bins[edge:] / edge)[None]
    return result


LONGEST_CONSONANT_S = 0.16
SPOKEN_PITCH_HZ = 95.0


def recite(
    line: tuple[Sung, ...],
    speaker: str,
    tract: float,
    singer: Singer,
    score: Score,
    samples: int,
    rng: np.random.Generator,
    loose_s: float = 0.012,
) -> np.ndarray:
    """Sing a line with a speaker's syllables: (samples,) float32. `loose_s` is how far they stray from the beat."""
    text = _Text(samples // HOP + 2, speaker, tract)
    for note, following in zip(line, (*line[1:], None), strict=False):
        spoken = text.learn(note)
        start_s = score.seconds(note.beat) + float(rng.normal(0, loose_s))
        end_s = score.seconds(note.beat + note.beats)
        if following is not None:
            end_s = min(end_s, score.seconds(following.beat) - 0.05)
        text.say(note, spoken, int(start_s / FRAME_S), int(end_s / FRAME_S), singer.scoop, rng)
    active = np.flatnonzero(text.syllable >= 0)
    if not len(active):
        return np.zeros(samples, dtype=np.float32)
    return _synthesise(text, active, singer, samples, rng)


class _Text:
    """What is said in each frame: (F,) each.

    syllable, moment: which one of `library`, -1 where none, and which of its frames
    level:            0..1
    pitch, since_s:   MIDI pitch as written, and the time since the note began; NaN where nothing is sung
    """

    def __init__(self, frames: int, speaker: str, tract: float):
        self.frames, self._speaker, self._tract = frames, speaker, tract
        self.syllable, self.moment, self.level = np.full(frames, -1), np.zeros(frames), np.zeros(frames)
        self.pitch, self.since_s = np.full((2, frames), np.nan)
        self.library: list[Spoken] = []
        self._known: dict[tuple, int] = {}
        self._end = 0

    def learn(self, note: Sung) -> int:
        """The number of a note's syllable in `library`, spoken once."""
        key = (note.onset, note.vowel, note.coda)
        if key not in self._known:
            self._known[key] = len(self.library)
            self.library.append(speak(self._speaker, key, self._tract))
        return self._known[key]

    def say(self, note: Sung, spoken: int, first: int, last: int, scoop: float, rng: np.random.Generator) -> None:
        """Lay a syllable on frames `first` to `last`, its first consonants before them; too short, it is left out."""
        if first < 4 or last >= self.frames - 40 or last - first < 8:
            return
        begin, moments = _moments(self.library[spoken], first, last, self._end + 1)
        end = self._end = begin + len(moments)
        self.syllable[begin:end], self.moment[begin:end] = spoken, moments
        self.level[begin:end] = note.velocity * (0.8 + 0.2 * rng.random())
        self.level[[begin, end - 1]] *= 0.3
        self.pitch[begin:end] = note.pitch
        self.since_s[first:end] = np.arange(end - first) * FRAME_S
        if note.phrase_start:
            self.pitch[begin : begin + 2] = note.pitch - scoop * rng.random()

    def spectra(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cepstra of the active frames, (active, Q) float32, and how voiced every frame is, (F,)."""
        cepstra = np.zeros((len(active), max(spoken.cepstra.shape[1] for spoken in self.library)), dtype=np.float32)
        voiced = np.zeros(self.frames)
        for number, spoken in enumerate(self.library):
            mine = np.flatnonzero(self.syllable[active] == number)
            last = len(spoken.voiced) - 1
            moment = np.clip(self.moment[active[mine]], 0, last)
            low = np.minimum(moment.astype(int), max(last - 1, 0))
            share = (moment - low)[:, None].astype(np.float32)
            between = spoken.cepstra[low] * (1 - share) + spoken.cepstra[np.minimum(low + 1, last)] * share
            cepstra[mine, : spoken.cepstra.shape[1]] = between
            voiced[active[mine]] = np.interp(moment, np.arange(last + 1), spoken.voiced)
        return cepstra, voiced


def _moments(spoken: Spoken, first: int, last: int, earliest: int) -> tuple[int, np.ndarray]:
    """Frame where the syllable begins, and for each of its frames the moment of the spoken syllable to use.

    Consonants keep their length as far as there is room; the vowel's core is stretched or cut to the note.
    """
    core_first, core_last = spoken.core
    longest = int(LONGEST_CONSONANT_S / FRAME_S)
    before = min(core_first, longest, max(first - earliest, 0))
    after_all = len(spoken.voiced) - 1 - core_last
    after = min(after_all, longest, max((last - first) // 2, 1))
    begin = first - before
    onset = np.linspace(core_first - min(core_first, max(longest, before)), core_first, before, endpoint=False)
    held = last - first - after
    shape = np.linspace(0, 1, max(held, 2))
    vowel = core_first + (core_last - core_first) * (0.6 * shape + 0.4 * shape**3)
    coda = np.linspace(core_last, core_last + min(after_all, longest), after)
    return begin, np.concatenate([onset, vowel, coda])


def _synthesise(text: _Text, active: np.ndarray, singer: Singer, samples: int, rng: np.random.Generator) -> np.ndarray:
    cepstra, voiced = text.spectra(active)
    level = smooth(text.level, 3)
    f0_hz = midi_hz(pitch_curve(text.pitch, text.since_s, singer, rng))
    positions = np.arange(samples) / HOP

    def per_sample(curve):
        return np.interp(positions, np.arange(text.frames), curve).astype(np.float32)

    shimmer = 1.0 + 0.04 * rng.standard_normal(text.frames)
    tone = level * np.sqrt(voiced) * np.sqrt(f0_hz / SPOKEN_PITCH_HZ) * shimmer
    hiss = level * np.sqrt(0.3 * singer.friction * np.clip(1.0 - voiced, 0, 1) + singer.breath * 0.05 * voiced)
    # In the analysis window a harmonic of amplitude A shows as A * ANALYSIS / 4,
    # noise as its RMS times sqrt(3 / 8 ANALYSIS).
    source = pulses(per_sample(f0_hz)) * per_sample(tone * 2.0 / ANALYSIS)
    source = process(source[None], [HighShelfFilter(2200.0, singer.brilliance_db, 0.5)])[0]
    source += rng.standard_normal(samples).astype(np.float32) * per_sample(hiss / np.sqrt(0.375 * ANALYSIS))
    return filter_frames(source, _Responses(cepstra), active)


class _Responses:
    """Minimum-phase responses from cepstra, made block by block as `filter_frames` asks for them.

    The cepstrum of a minimum-phase response is zero before time zero; folding the even cepstrum of a magnitude onto
    its positive side gives the response that has this magnitude and rings only forwards.
    """

    def __init__(self, cepstra: np.ndarray):
        self._cepstra = cepstra

    def __getitem__(self, rows: slice) -> np.ndarray:
        folded = self._cepstra[rows].copy()
        folded[:, 1:] *= 2.0
        return np.exp(np.fft.rfft(folded, n=N_FFT, axis=1)).astype(np.complex64)
