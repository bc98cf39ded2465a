from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest
import signals

from tsbs_daw.audio.read import BLOCK_SAMPLES, open_audio, probe
from tsbs_daw.audio.writer import AudioWriter
from tsbs_daw.core.errors import NonFiniteAudio, UnreadableAudio, UnsupportedAudio

# container, subtype, ending, sample rate, largest difference that the format may make (None: a lossy codec)
FORMATS = [
    ("WAV", "FLOAT", ".wav", 44100, 0),
    ("WAV", "DOUBLE", ".wav", 44100, 0),
    ("WAV", "PCM_U8", ".wav", 44100, 2**-7),
    ("WAV", "PCM_16", ".wav", 48000, 2**-15),
    ("WAV", "PCM_24", ".wav", 96000, 2**-23),
    ("WAV", "PCM_32", ".wav", 44100, 2**-23),
    ("WAV", "ALAW", ".wav", 8000, 0.05),
    ("WAV", "ULAW", ".wav", 8000, 0.05),
    ("WAV", "IMA_ADPCM", ".wav", 44100, None),
    ("WAVEX", "PCM_24", ".wav", 44100, 2**-23),
    ("RF64", "PCM_24", ".wav", 44100, 2**-23),
    ("W64", "FLOAT", ".w64", 44100, 0),
    ("AIFF", "PCM_16", ".aiff", 44100, 2**-15),
    ("AIFF", "FLOAT", ".aifc", 44100, 0),
    ("CAF", "PCM_24", ".caf", 44100, 2**-23),
    ("CAF", "ALAC_16", ".caf", 44100, 2**-15),
    ("AU", "PCM_16", ".au", 44100, 2**-15),
    ("FLAC", "PCM_16", ".flac", 44100, 2**-15),
    ("FLAC", "PCM_24", ".flac", 192000, 2**-23),
    ("OGG", "VORBIS", ".ogg", 44100, None),
    ("OGG", "OPUS", ".opus", 48000, None),
    ("MP3", "MPEG_LAYER_III", ".mp3", 44100, None),
]


def read_all(path, **options) -> np.ndarray:
    with open_audio(path, **options) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


@pytest.mark.parametrize(("container", "subtype", "ending", "rate", "tolerance"), FORMATS)
def test_every_format_gives_the_sound_at_its_own_rate_and_length(tmp_path, container, subtype, ending, rate, tolerance):
    sound = signals.sweep(30_001, rate, high_hz=3000)
    path = signals.write_file(tmp_path / f"song{ending}", sound, rate, container, subtype)
    with open_audio(path) as reader:
        found = np.concatenate(list(reader.blocks()), axis=1)
        info = reader.info
    assert (info.sample_rate, info.channels, info.subtype, info.warnings) == (rate, 2, subtype, ())
    assert info.container == {"WAVEX": "WAV"}.get(container, container)
    assert found.dtype == np.float32
    if subtype == "IMA_ADPCM":  # it has whole blocks only
        assert 0 <= found.shape[1] - 30_001 < 2048
    else:
        assert info.samples == reader.samples == found.shape[1] == 30_001
    difference = np.abs(found[:, :30_001] - sound)
    if tolerance is None:
        assert np.sqrt(np.mean(difference**2)) < 0.05
    else:
        assert difference.max() <= tolerance


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 88200, 176400, 384000])
def test_rates_from_8k_to_384k_are_read_as_they_are(tmp_path, rate):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(1000), rate)
    assert (probe(path).sample_rate, probe(path).samples) == (rate, 1000)


@pytest.mark.parametrize("rate", [1, 4000, 384_001, 2**31])
def test_other_rates_are_refused(tmp_path, rate):
    (tmp_path / "song.wav").write_bytes(signals.wav_bytes(signals.noise(1000), rate))
    with pytest.raises(UnsupportedAudio, match=f"sample rate of {rate} Hz; convert it"):
        probe(tmp_path / "song.wav")


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_channels_keep_their_order(tmp_path, channels):
    sound = signals.noise(5000, channels=channels)
    path = signals.write_file(tmp_path / "song.wav", sound)
    assert np.array_equal(read_all(path), sound)


@pytest.mark.parametrize("channels", [0, 33, 1025])
def test_no_channels_or_too_many_are_refused(tmp_path, channels):
    (tmp_path / "song.wav").write_bytes(
        signals.wav_bytes(signals.noise(5000, channels=1), channels=channels, block_align=2 * channels)
    )
    with pytest.raises(UnsupportedAudio, match=f"has {channels} channels"):
        probe(tmp_path / "song.wav")


def test_reading_in_any_pieces_gives_the_same_sound(tmp_path):
    sound = signals.noise(2 * BLOCK_SAMPLES + 77)
    path = signals.write_file(tmp_path / "song.wav", sound)
    for piece in (999, BLOCK_SAMPLES, 10**9):
        with open_audio(path) as reader:
            pieces = list(reader.blocks(piece))
            assert reader.read(piece).shape == (2, 0), "the end stays the end"
        assert all(part.shape[1] == piece for part in pieces[:-1])
        assert np.array_equal(np.concatenate(pieces, axis=1), sound)


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
def test_a_portion_is_exactly_that_part_of_the_whole(tmp_path, container, subtype):
    path = signals.write_file(tmp_path / "song", signals.sweep(100_000), 44100, container, subtype)
    whole = read_all(path)
    for start, length in ((0, 10), (70_001, 20_000), (99_999, 1)):
        with open_audio(path, start_samples=start, length_samples=length) as reader:
            assert (reader.samples, reader.info.samples) == (length, 100_000)
            part = np.concatenate(list(reader.blocks(4096)), axis=1)
        assert np.array_equal(part, whole[:, start : start + length])
    assert np.array_equal(read_all(path, start_samples=99_000), whole[:, 99_000:])


@pytest.mark.parametrize(("start", "length"), [(1000, None), (0, 1001), (999, 2), (-1, 5), (0, 0)])
def test_a_portion_outside_of_the_file_is_refused(tmp_path, start, length):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(1000))
    with pytest.raises(UnsupportedAudio, match="portion"):
        open_audio(path, start_samples=start, length_samples=length)


def test_samples_beyond_full_scale_are_kept(tmp_path):
    sound = signals.noise(1000, amplitude=3.0)
    assert np.array_equal(read_all(signals.write_file(tmp_path / "song.wav", sound)), sound)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, value):
    sound = signals.noise(100_000)
    sound[1, 88_200] = value
    path = signals.write_file(tmp_path / "song.wav", sound)
    with pytest.raises(NonFiniteAudio, match=rf"{value} at sample 88200 \(2.000 s\) of channel 2"):
        read_all(path)
    with pytest.raises(NonFiniteAudio, match=r"at sample 88200 "):
        read_all(path, start_samples=88_000)
    assert read_all(path, length_samples=80_000).shape == (2, 80_000), "what is not read cannot hurt"


def test_a_double_that_no_float_can_hold_is_refused(tmp_path):
    sound = np.full((1, 100), 1e300)
    path = signals.write_file(tmp_path / "song.wav", sound, subtype="DOUBLE")
    with pytest.raises(NonFiniteAudio, match="inf at sample 0 "):
        read_all(path)


def test_silence_is_sound(tmp_path):
    path = signals.write_file(tmp_path / "song.flac", signals.silence(10_000), 44100, "FLAC", "PCM_16")
    assert np.array_equal(read_all(path), signals.silence(10_000))


NAMES = [
    "two\nlines.wav",
    "  spaces .wav",
    "émoji 🎧.wav",
    unicodedata.normalize("NFD", "Größe é.wav"),
    "-rf.wav",
    "ｆ.wav",
]

LATIN_1 = b"latin-\xe9\xff.wav".decode("utf-8", "surrogateescape")  # bytes that are not UTF-8


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids most of these names")
@pytest.mark.parametrize("name", [*NAMES, LATIN_1, "%s{0}'\"`$(x).wav"])
def test_any_file_name_is_read_and_written(tmp_path, name):
    if sys.platform == "darwin" and not name.isascii():
        pytest.skip("this file system changes such names itself")
    sound = signals.noise(500)
    path = tmp_path / name
    with AudioWriter(path, 44100, 2) as writer:
        writer.write(sound)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_all(path), sound)
    path.write_bytes(b"")
    with pytest.raises(UnreadableAudio) as refusal:
        probe(path)
    assert str(refusal.value).isprintable(), "a message is one line that any terminal and log can take"
    str(refusal.value).encode("utf-8")


def test_a_relative_path_is_read(tmp_path, monkeypatch):
    signals.write_file(tmp_path / "song.wav", signals.noise(500))
    monkeypatch.chdir(tmp_path)
    assert probe("song.wav").samples == 500


def test_a_module_beside_the_song_is_not_imported(tmp_path, monkeypatch):
    signals.write_file(tmp_path / "song.wav", signals.noise(500))
    (tmp_path / "soundfile.py").write_text("raise SystemExit(1)")
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert probe("song.wav").samples == 500


@pytest.mark.parametrize(
    ("container", "subtype", "name"),
    [("WAV", "PCM_16", "song.mp3"), ("MP3", "MPEG_LAYER_III", "song.wav"), ("OGG", "VORBIS", "song.FLAC")],
)
def test_a_wrong_ending_is_recognised_and_noted(tmp_path, container, subtype, name):
    path = signals.write_file(tmp_path / name, signals.noise(5000), 44100, container, subtype)
    info = probe(path)
    assert (info.container, info.samples) == (container, 5000)
    assert len(info.warnings) == 1
    assert f"is named {path.suffix.lower()} but is {container}" in info.warnings[0]


def test_an_ending_of_no_meaning_needs_no_note(tmp_path):
    path = signals.write_file(tmp_path / "song", signals.noise(5000), 44100, "FLAC", "PCM_16")
    assert probe(path).warnings == ()


def test_a_time_reference_is_read_before_and_behind_the_sound(tmp_path):
    sound = signals.noise(999, channels=1)
    for options in ({"before": signals.bext(48000 * 3600)}, {"after": signals.bext(48000 * 3600)}):
        (tmp_path / "song.wav").write_bytes(signals.wav_bytes(sound, 48000, **options))
        assert probe(tmp_path / "song.wav").time_reference_samples == 48000 * 3600


def test_an_absurd_time_reference_is_replaced_by_zero_with_a_warning(tmp_path):
    (tmp_path / "song.wav").write_bytes(signals.wav_bytes(signals.noise(999), before=signals.bext((1 << 64) - 1)))
    info = probe(tmp_path / "song.wav")
    assert info.time_reference_samples == 0
    assert "has an implausible time reference (18446744073709551615 samples)" in info.warnings[0]


def test_closing_early_stops_the_decoder(tmp_path):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(500_000))
    with open_audio(path) as reader:
        reader.read(10)
        process = reader._decoder.process
    assert process.returncode is not None
    reader.close()
