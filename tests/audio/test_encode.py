"""Delivery formats, each read back by libsndfile and by this package's own reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from wav_loops import acid_of, instrument_of

from tsbs_daw.audio.encoders import DELIVERY_FORMATS, file_ending, open_writer
from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import probe
from tsbs_daw.core.errors import NoSpaceLeft, OutputError

LOSSLESS = [name for name, form in DELIVERY_FORMATS.items() if form.exact]
CUT = [name for name in LOSSLESS if DELIVERY_FORMATS[name].bits]


def deliver(path: Path, form: str, sound: np.ndarray, rate: int = 44100, step: int = 4099, **options):
    """Write in uneven blocks; the closed writer."""
    with open_writer(path, form, rate, sound.shape[0], **options) as writer:
        for start in range(0, sound.shape[1], step):
            writer.write(sound[:, start : start + step])
    return writer


def found_in(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def lag(sound: np.ndarray, other: np.ndarray) -> int:
    """How many samples `other` comes later."""
    size = 1 << (2 * max(sound.shape[1], other.shape[1])).bit_length()
    match = np.fft.irfft(np.fft.rfft(other[0], size) * np.conj(np.fft.rfft(sound[0], size)))
    best = int(match.argmax())
    return best if best < size // 2 else best - size


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
@pytest.mark.parametrize(("channels", "rate"), [(1, 48000), (2, 44100)])
def test_a_format_gives_back_the_rate_the_channels_and_every_sample(tmp_path, form, channels, rate):
    sound = signals.noise(30_001, channels=channels, amplitude=0.1)
    path = tmp_path / f"é{file_ending(form)}"
    writer = deliver(path, form, sound, rate)
    info, bits = probe(path), DELIVERY_FORMATS[form].bits
    assert (info.sample_rate, info.channels, info.samples, info.warnings) == (rate, channels, 30_001, ())
    assert (writer.samples, writer.sample_rate, writer.warnings) == (30_001, rate, ())
    assert info.subtype == DELIVERY_FORMATS[form].subtype
    found = found_in(path)
    assert found.shape == sound.shape
    if form == "wav32f":
        assert np.array_equal(found, sound)
    elif bits:
        assert np.abs(found - sound).max() <= 1.5 * 2.0 ** (1 - bits) * 1.01, "rounding and dither"
    else:
        assert lag(sound, found) == 0


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_how_a_sound_is_cut_into_blocks_does_not_matter(tmp_path, form):
    sound = signals.noise(20_000)
    sound[:, 5000:9000] = 0
    for folder, step in (("a", 20_000), ("b", 777)):
        (tmp_path / folder).mkdir()
        deliver(tmp_path / folder / "song", form, sound, step=step)
    assert (tmp_path / "a/song").read_bytes() == (tmp_path / "b/song").read_bytes()


@pytest.mark.parametrize("form", CUT)
def test_digital_silence_stays_digital_silence(tmp_path, form):
    sound = signals.noise(20_000, amplitude=1e-3)
    sound[:, 4000:16_000] = 0
    deliver(tmp_path / "song", form, sound)
    found = found_in(tmp_path / "song")
    assert not found[:, 4000:16_000].any()
    assert found[:, :4000].any()


@pytest.mark.parametrize("form", ["wav16", "flac16", "aiff16"])
def test_a_tone_below_the_smallest_step_survives_in_the_dither(tmp_path, form):
    """Rounded alone it would be silence."""
    sound = signals.tone(1000, 1 << 17, amplitude=2.0**-16 * 0.6, channels=1)
    deliver(tmp_path / "song", form, sound)
    found = found_in(tmp_path / "song")[0]
    reference = signals.tone(1000, 1 << 17, amplitude=1.0, channels=1)[0]
    assert 2 * np.dot(found, reference) / len(found) == pytest.approx(2.0**-16 * 0.6, rel=0.1)


def test_each_file_has_dither_of_its_own(tmp_path):
    sound = signals.tone(440, 1 << 16)
    for name in ("drums", "bass"):
        deliver(tmp_path / name, "wav16", sound)
    errors = [(found_in(tmp_path / name) - sound).ravel() for name in ("drums", "bass")]
    assert abs(np.corrcoef(errors)[0, 1]) < 0.2, "what the rounding alone leaves in common, at most"


@pytest.mark.parametrize("form", [name for name in DELIVERY_FORMATS if name != "wav32f"])
def test_samples_beyond_full_scale_are_counted_and_told_of(tmp_path, form, caplog):
    sound = signals.noise(10_000, amplitude=0.05)
    sound[0, [10, 500, 9000]] = [1.5, -1.2, 3.0]
    path = tmp_path / "song.xyz"
    writer = deliver(path, form, sound)
    assert writer.clipped_samples == 3
    assert writer.warnings == (f"'{path}' clips: 3 samples beyond full scale. Lower the level, or use wav32f.",)
    assert writer.warnings[0] in caplog.text
    if DELIVERY_FORMATS[form].exact:
        step = 2.0 ** (1 - DELIVERY_FORMATS[form].bits)
        assert found_in(path)[0, [10, 500, 9000]] == pytest.approx([1.0, -1.0, 1.0], abs=3 * step)


def test_a_float_file_never_clips(tmp_path):
    sound = signals.noise(10_000, amplitude=2.0)
    writer = deliver(tmp_path / "song.wav", "wav32f", sound)
    assert (writer.clipped_samples, writer.warnings) == (0, ())
    assert np.array_equal(found_in(tmp_path / "song.wav"), sound)


@pytest.mark.parametrize(("rate", "file_rate"), [(88200, 44100), (96000, 48000), (192_000, 48000), (64000, 48000)])
def test_an_mp3_of_a_high_rate_has_a_lower_one_and_says_so(tmp_path, rate, file_rate):
    sound = signals.sweep(rate, rate, high_hz=8000)
    writer = deliver(tmp_path / "song.mp3", "mp3", sound, rate)
    info = probe(tmp_path / "song.mp3")
    assert (writer.sample_rate, info.sample_rate, info.samples) == (file_rate, file_rate, file_rate)
    assert f"an MP3 cannot hold {rate} Hz" in writer.warnings[0]


@pytest.mark.parametrize(("rate", "file_rate", "samples"), [(96000, 48000, 96001), (88200, 44100, 50001)])
def test_an_mp3_of_a_high_rate_lasts_as_long_and_lies_where_it_was(tmp_path, rate, file_rate, samples):
    sound = signals.sweep(samples, rate, high_hz=8000)
    deliver(tmp_path / "song.mp3", "mp3", sound, rate)
    found = found_in(tmp_path / "song.mp3")
    factor = rate // file_rate
    assert found.shape[1] == -(-samples // factor)
    # A low sweep has little to lose when every second sample of it is left out.
    assert lag(np.ascontiguousarray(sound[:, ::factor]), found) == 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 500, 1151, 1152, 1153, 44100])
def test_an_mp3_starts_and_ends_at_the_sample(tmp_path, channels, samples):
    sound = signals.noise(samples, channels=channels)
    deliver(tmp_path / "song.mp3", "mp3", sound)
    found = found_in(tmp_path / "song.mp3")
    assert found.shape == sound.shape
    if samples > 1000:
        assert lag(sound, found) == 0


@pytest.mark.parametrize(("form", "channels"), [("mp3", 3), ("flac24", 9), ("aiff16", 33)])
def test_channels_that_a_format_cannot_hold_are_refused(tmp_path, form, channels):
    with pytest.raises(OutputError, match=rf"cannot have {channels} channels.*Use wav24"):
        open_writer(tmp_path / "song", form, 44100, channels)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(OutputError, match=r"no delivery format 'ogg'; choose one of wav32f, wav24"):
        open_writer(tmp_path / "song", "ogg", 44100, 2)


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_a_file_of_no_samples_is_a_file_or_an_error_that_says_so(tmp_path, form):
    try:
        writer = deliver(tmp_path / "song", form, signals.silence(0))
    except OutputError:
        assert list(tmp_path.iterdir()) == []
    else:
        assert (writer.samples, soundfile.info(str(tmp_path / "song")).frames) == (0, 0)


@pytest.mark.parametrize("form", ["flac24", "aiff24", "mp3"])
def test_nan_is_never_written_and_leaves_no_torso(tmp_path, form):
    sound = signals.noise(20_000)
    sound[1, 15_000] = np.nan
    with pytest.raises(OutputError, match="NaN or infinity"):
        deliver(tmp_path / "song", form, sound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["flac24", "aiff24", "mp3"])
def test_an_exception_of_the_caller_leaves_no_torso(tmp_path, form):
    with pytest.raises(KeyError), open_writer(tmp_path / "song", form, 44100, 2) as writer:
        writer.write(signals.noise(20_000))
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="already closed"):
        writer.write(signals.noise(10))


@pytest.mark.parametrize("form", ["wav24", "flac24", "aiff24", "mp3"])
def test_a_file_that_is_finished_stays_whatever_comes_after(tmp_path, form):
    with pytest.raises(KeyError), open_writer(tmp_path / "song", form, 44100, 2) as writer:
        writer.write(signals.noise(20_000))
        writer.close()
        writer.close()
        raise KeyError
    assert soundfile.info(str(tmp_path / "song")).frames == 20_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_a_full_disk_is_reported_as_one(form):
    with pytest.raises(NoSpaceLeft, match="disk is full"):
        deliver(Path("/dev/full"), form, signals.noise(200_000))


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tsbs_daw.audio.encoders import open_writer
from tsbs_daw.core.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
noise = np.random.default_rng(0).normal(0, 0.1, (2, 44100)).astype(np.float32)
try:
    with open_writer(Path(sys.argv[1]), sys.argv[2], 44100, 2) as writer:
        for _ in range(5):
            writer.write(noise)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("form", ["flac24", "aiff24", "mp3"])
@pytest.mark.parametrize("limit", [0, 100, 100_000])
def test_a_disk_that_stops_half_way_leaves_no_torso(tmp_path, form, limit):
    path = tmp_path / "song"
    command = [sys.executable, "-c", LIMITED, str(path), form, str(limit)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "too large for the file system" in found.stdout
    assert not path.exists()


@pytest.mark.parametrize("form", ["wav32f", "wav24", "wav16", "flac24"])
def test_the_place_in_the_session_and_the_description_are_kept(tmp_path, form):
    place = 48000 * 3600 + 17
    deliver(tmp_path / "s", form, signals.noise(1000), 48000, time_reference_samples=place, description="vocals of é")
    assert inspect(tmp_path / "s").time_reference_samples == place
    if form == "flac24":
        from mutagen.flac import FLAC

        assert FLAC(tmp_path / "s")["description"] == ["vocals of é"]
    assert found_in(tmp_path / "s").shape == (2, 1000)


@pytest.mark.parametrize("form", ["wav32f", "wav24", "wav16"])
def test_tempo_and_key_of_a_stem_are_read_by_libsndfile(tmp_path, form):
    deliver(tmp_path / "s.wav", form, signals.noise(44100 * 3), tempo_bpm=127.5, key="Bb minor")
    assert acid_of(tmp_path / "s.wav") == {"bpm": 127.5, "beats": 6, "loop": True, "root": 70, "meter": (4, 4)}
    assert instrument_of(tmp_path / "s.wav") is None, "a whole stem is no sampler's loop"


def test_a_loop_says_where_it_loops(tmp_path):
    deliver(tmp_path / "s.wav", "wav24", signals.noise(44100 * 4), tempo_bpm=120, beats=8)
    assert acid_of(tmp_path / "s.wav") == {"bpm": 120, "beats": 8, "loop": True, "root": -1, "meter": (4, 4)}
    assert instrument_of(tmp_path / "s.wav") == {"note": 60, "loops": [(0, 44100 * 4)]}
