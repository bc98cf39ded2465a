"""Every preset that is shipped, measured: no clipping, no level that runs away, and what its description claims."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import signals

from tsbs_daw.audio.dsp import Levels, Meter
from tsbs_daw.core.config import resource_folder
from tsbs_daw.effects.chain import pink_noise, render
from tsbs_daw.effects.table import Output
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import Preset, read_preset
from tsbs_daw.presets.rules import FIELDS, FORMATS, SESSIONS

RATE = signals.RATE
STEMS = ("vocals", "drums", "bass", "other")
EXPECTED = {
    "none", "vocal-cleanup", "acapella", "karaoke", "instrumental", "drumless", "minus-one", "practice", "drum-punch",
    "bass-tighten", "remix-prep", "vocal-space", "lo-fi", "lower-key", "guitar-piano", "crate",
}  # fmt: skip

# Loudness against the plain sum of the stems, in LU, where it is an output's purpose to be more than 6 LU away.
QUIETER_ON_PURPOSE = {"vocal hall": (-14, -2), "lo-fi beat": (-9, 0)}

PRESETS = [read_preset(path) for path in sorted(resource_folder("presets").glob("*.yaml"))]
OUTPUTS = [pytest.param(output, id=output.name) for preset in PRESETS for output in preset.outputs]


def preset_named(name: str) -> Preset:
    return next(preset for preset in PRESETS if preset.name == name)


def output_of(preset: str, number: int = 0) -> Output:
    return preset_named(preset).outputs[number]


def measured(audio: np.ndarray) -> Levels:
    meter = Meter(RATE, audio.shape[0])
    meter.add(audio)
    return meter.levels()


def plain(output: Output, stems: dict[str, np.ndarray]) -> np.ndarray:
    return render(Output(output.name, output.sources, output.gain_db), stems, RATE)


@cache
def song() -> dict[str, np.ndarray]:
    """Four stems whose mixture peaks at -3 dBFS."""
    stems = signals.song(4.0)
    gain = 10 ** (-3 / 20) / np.abs(signals.mixture(stems)).max()
    return {name: (stem * gain).astype(np.float32) for name, stem in stems.items()}


@cache
def hot_stems() -> dict[str, np.ndarray]:
    """Every stem peaks at -3 dBFS on its own: hotter than any real song."""
    return {name: stem * np.float32(10 ** (-3 / 20) / np.abs(stem).max()) for name, stem in song().items()}


@cache
def noise() -> dict[str, np.ndarray]:
    """Pink noise at -18 dBFS RMS in each stem."""
    rng = np.random.default_rng(7)
    return {name: pink_noise(rng)[:, : 2 * RATE] for name in STEMS}


SOUNDS = {"song": song, "hot stems": hot_stems, "noise": noise}


@cache
def levels(output_name: str, sound: str) -> tuple[Levels, Levels]:
    """Of the plain sum, and of the output."""
    output = next(output for preset in PRESETS for output in preset.outputs if output.name == output_name)
    stems = SOUNDS[sound]()
    return measured(plain(output, stems)), measured(render(output, stems, RATE))


def frame_levels(audio: np.ndarray, frame: int = 4410) -> np.ndarray:
    """RMS of each tenth of a second, dB."""
    whole = audio.shape[1] // frame * frame
    return 10 * np.log10(np.square(audio[:, :whole]).reshape(audio.shape[0], -1, frame).mean(axis=(0, 2)) + 1e-12)


def test_the_presets_of_the_manual_are_there_and_their_outputs_have_names_of_their_own():
    assert {preset.name for preset in PRESETS} == EXPECTED
    names = [output.name for preset in PRESETS for output in preset.outputs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_each_is_described_and_fits_the_four_stems(preset: Preset):
    assert 15 <= len(preset.description) <= 130 and preset.description.endswith(".")
    preset.check_stems(STEMS)


def test_the_manual_lists_every_preset_and_its_example_is_right(tmp_path):
    text = (resource_folder("presets") / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == EXPECTED
    example, delivery, passes, plugin = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(example, encoding="utf-8")
    (output,) = read_preset(path).outputs
    assert measured(render(output, song(), RATE)).true_peak_db < 0
    path.write_text(example + plugin, encoding="utf-8")
    assert read_preset(path).outputs[0].uses_plugin
    path.write_text(example + delivery, encoding="utf-8")
    found = read_preset(path).delivery
    assert found == DeliveryOptions(
        format="wav24",
        names=found.names,
        loudness_lufs=-14.0,
        sessions=("rpp", "dawproject"),
        analysis=True,
        loops=(4, 8),
        stem_mp4=True,
        source="copy",
        stems=("vocals", "rest"),
        residual="separate",
        quality="best",
    )
    path.write_text(passes, encoding="utf-8")
    assert [one.stem for one in read_preset(path).passes] == ["vocals", "other"]
    assert set(re.findall(r"`\{(\w+)\}`", text)) == set(FIELDS)
    assert all(f" {form} " in f"{text} ".replace("\n", " ") for form in FORMATS)


def test_the_presets_of_effects_deliver_as_ever_and_the_crate_all_that_a_remix_needs():
    delivered = {preset.name: preset.delivery for preset in PRESETS}
    crate = delivered.pop("crate")
    assert all(delivery.plain for delivery in delivered.values())
    assert crate.analyses and crate.loudness_lufs and set(crate.sessions) == set(SESSIONS) and crate.source == "copy"


@pytest.mark.parametrize("path", sorted(resource_folder("presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_explains_its_choices(path):
    if len(read_preset(path).outputs) != 0 and path.stem != "minus-one":
        assert sum(line.lstrip().startswith("#") for line in path.read_text(encoding="utf-8").splitlines()) >= 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_nothing_clips(output: Output):
    assert all(levels(output.name, sound)[1].true_peak_db < 0 for sound in SOUNDS)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_level_stays_near_the_plain_sum(output: Output):
    low, high = QUIETER_ON_PURPOSE.get(output.name, (-6, 6))
    for sound in ("song", "noise"):
        before, after = levels(output.name, sound)
        assert low <= after.loudness_lufs - before.loudness_lufs <= high


@pytest.mark.parametrize("output", OUTPUTS)
def test_silence_stays_silent(output: Output):
    assert np.abs(render(output, {name: signals.silence(RATE) for name in STEMS}, RATE)).max() < 1e-4  # -80 dBFS


@pytest.mark.parametrize("rate", [8000, 48_000, 96_000])
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_sample_rate_will_do(output: Output, rate: int):
    stems = {name: signals.noise(rate // 8, channels=1, seed=n) for n, name in enumerate(STEMS)}
    done = render(output, stems, rate)
    assert done.shape == (1, rate // 8) and np.abs(done).max() < 1.1


@pytest.mark.parametrize(
    ("preset", "number"),
    [("instrumental", 0), ("karaoke", 0), ("karaoke", 1), ("drumless", 0), *(("practice", n) for n in range(4))],
)
def test_a_backing_track_is_the_plain_sum_as_long_as_it_is_not_too_loud(preset: str, number: int):
    output = output_of(preset, number)
    np.testing.assert_allclose(render(output, song(), RATE), plain(output, song()), atol=1e-6)


def test_practice_lowers_one_part_by_12_db_in_each():
    lowered = {}
    for output in preset_named("practice").outputs:
        gains = dict(zip(output.sources, output.gain_db, strict=True))
        assert set(gains) == set(STEMS)
        lowered |= {stem: gain for stem, gain in gains.items() if gain}
    assert lowered == dict.fromkeys(STEMS, -12.0)


def test_minus_one_leaves_one_part_out_in_each():
    missing = [set(STEMS) - set(output.sources) for output in preset_named("minus-one").outputs]
    assert sorted(stem for stems in missing for stem in stems) == sorted(STEMS)


@pytest.mark.parametrize("preset", ["vocal-cleanup", "acapella", "remix-prep"])
def test_bleed_between_the_lines_goes_down_and_the_voice_does_not(preset: str):
    """Lines of a voice with the other stems 32 dB below it, as a separator leaves them."""
    voice = song()["vocals"] * np.float32(2.5)
    at = signals.times(voice.shape[1])
    voice = voice * (at % 2 < 1).astype(np.float32)
    bleed = signals.mixture({name: song()[name] for name in ("drums", "bass", "other")}) * np.float32(10 ** (-32 / 20))
    separated = {"vocals": voice + bleed}
    done, before = render(output_of(preset), separated, RATE), separated["vocals"]
    change = frame_levels(done) - frame_levels(before)
    sung = frame_levels(voice) > -25
    between = (frame_levels(voice) < -100) & (at[2205::4410][: len(change)] % 2 > 1.4)  # after the release
    assert change[between].mean() < change[sung].mean() - 5


def test_bass_notes_come_closer_to_each_other():
    stems = song()
    steps = np.repeat(np.tile([1.0, 0.4], 6), RATE // 2)[: stems["bass"].shape[1]].astype(np.float32)
    uneven = {"bass": stems["bass"] * steps * np.float32(2)}
    before, after = frame_levels(uneven["bass"]), frame_levels(render(output_of("bass-tighten"), uneven, RATE))
    assert after.std() < 0.75 * before.std()


def test_a_tight_bass_has_harmonics_that_a_small_speaker_plays():
    whole = output_of("bass-tighten")
    bare = replace(whole, chain=tuple(effect for effect in whole.chain if effect.name != "Mix"))

    def above_300_hz(audio: np.ndarray) -> float:
        power = np.square(np.abs(np.fft.rfft(audio[0])))
        return float(power[round(300 * audio.shape[1] / RATE) :].sum() / power.sum())

    # 2 dB
    assert above_300_hz(render(whole, song(), RATE)) > 1.6 * above_300_hz(render(bare, song(), RATE))


def test_punched_drums_are_denser_than_before():
    """What lies behind the hits comes up against the hits."""
    drums = song()["drums"]
    levels = [np.sort(frame_levels(audio, 2205)) for audio in (drums, render(output_of("drum-punch"), song(), RATE))]
    body, hits = slice(len(levels[0]) // 5, len(levels[0]) // 2), slice(-len(levels[0]) // 10, None)
    before, after = (level[body].mean() - level[hits].mean() for level in levels)
    assert after > before + 2


def test_a_vocal_space_is_wet_only():
    """A click: nothing comes at once, and what comes is spread out."""
    click = {"vocals": signals.impulses(2 * RATE, [RATE // 2])}
    for output in preset_named("vocal-space").outputs:
        done = np.abs(render(output, click, RATE))
        assert done[:, : RATE // 2 + RATE // 40].max() < 1e-6 < done[:, RATE // 2 + RATE // 40 :].max()


def test_lower_key_lowers_by_two_semitones():
    tone = {"bass": signals.tone(220, 2 * RATE, amplitude=0.2), "other": signals.silence(2 * RATE)}
    done = render(output_of("lower-key"), tone, RATE)[0, RATE // 2 : -RATE // 2]
    peak_hz = np.argmax(np.abs(np.fft.rfft(done * np.hanning(RATE), 1 << 19))) * RATE / (1 << 19)
    assert peak_hz == pytest.approx(220 * 2 ** (-2 / 12), abs=0.5)


def test_lo_fi_is_dull():
    spectrum = np.abs(np.fft.rfft(render(output_of("lo-fi"), noise(), RATE)[0]))
    per_hz = len(spectrum) / (RATE / 2)
    high = np.square(spectrum[int(12_000 * per_hz) :]).mean()
    middle = np.square(spectrum[int(500 * per_hz) : int(2000 * per_hz)]).mean()
    assert 10 * np.log10(high / middle) < -20
