from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile

from tsbs_daw.audio.read import open_audio, probe
from tsbs_daw.audio.writer import AudioWriter, file_samples
from tsbs_daw.core.errors import NoSpaceLeft, OutputError


def write(path: Path, sound: np.ndarray, rate: int = 44100, **options) -> AudioWriter:
    """Write in uneven blocks."""
    with AudioWriter(path, rate, sound.shape[0], **options) as writer:
        for start in range(0, sound.shape[1], 4099):
            writer.write(sound[:, start : start + 4099])
    return writer


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_float_samples_come_back_bit_by_bit(tmp_path, channels):
    sound = signals.noise(10_001, channels=channels, amplitude=2.0)
    sound[:, :6] = [0.0, -0.0, 1e-40, 3.4e38, -1.0, 1.5]  # a denormal, the largest, beyond full scale
    write(tmp_path / "stem.wav", sound, 96000)
    found, rate = soundfile.read(tmp_path / "stem.wav", dtype="float32", always_2d=True)
    assert rate == 96000
    assert np.array_equal(found.T.view(np.uint32), sound.view(np.uint32))
    with open_audio(tmp_path / "stem.wav") as reader:
        assert np.array_equal(reader.read(20_000).view(np.uint32), sound.view(np.uint32))
        assert (reader.info.container, reader.info.subtype, reader.info.warnings) == ("WAV", "FLOAT", ())


def test_the_same_sound_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, signals.noise(5000), time_reference_samples=7)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_blocks_of_any_memory_layout_are_taken(tmp_path):
    sound = signals.noise(1000)
    with AudioWriter(tmp_path / "stem.wav", 44100, 2) as writer:
        writer.write(np.asfortranarray(sound)[:, :0])
        writer.write(np.asfortranarray(sound)[:, :500])
        writer.write(sound[:, 500:].astype(np.float64))
    with open_audio(tmp_path / "stem.wav") as reader:
        assert np.array_equal(reader.read(2000), sound)


@pytest.mark.parametrize("place", [0, 1, 48000 * 86400, (1 << 32) + 5])
def test_the_time_reference_comes_back(tmp_path, place):
    write(
        tmp_path / "stem.wav", signals.noise(100), 48000, time_reference_samples=place, description="vocals of Jóga 東"
    )
    assert probe(tmp_path / "stem.wav").time_reference_samples == place
    data = (tmp_path / "stem.wav").read_bytes()
    body = data.index(b"bext") + 8
    assert data[body : body + 256].rstrip(b"\0") == b"vocals of Joga ?"
    assert data[body - 4 : body] == (602).to_bytes(4, "little")
    assert data[body + 256 : body + 288].rstrip(b"\0") == b"tsbs-daw"


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2**-15), ("PCM_24", 2**-23)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pcm_rounds_to_the_nearest_step_and_counts_what_it_cuts_off(tmp_path, subtype, step, channels):
    sound = signals.noise(1001, channels=channels)
    sound[0, :4] = [1.0, -1.0, 2.0, -2.0]
    writer = write(tmp_path / "stem.wav", sound, subtype=subtype)
    assert writer.clipped_samples == 3, "-1.0 is a value that PCM has, 1.0 is not"
    with open_audio(tmp_path / "stem.wav") as reader:
        found = reader.read(2000)
        assert reader.info.subtype == subtype
    assert found[0, :4].tolist() == [1 - step, -1.0, 1 - step, -1.0]
    assert np.abs(found - sound)[:, 4:].max() <= step / 2
    assert file_samples(tmp_path / "stem.wav") == 1001


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_file_beyond_the_limit_is_an_rf64_and_one_below_is_not(tmp_path, channels):
    sound = signals.noise(3000, channels=channels)
    write(tmp_path / "plain.wav", sound)
    size = (tmp_path / "plain.wav").stat().st_size
    write(tmp_path / "limit.wav", sound, riff_limit_bytes=size - 8, time_reference_samples=99)
    write(tmp_path / "long.wav", sound, riff_limit_bytes=size - 9, time_reference_samples=99)
    assert (tmp_path / "limit.wav").read_bytes()[:4] == b"RIFF"
    data = (tmp_path / "long.wav").read_bytes()
    assert (data[:8], data[12:16], len(data)) == (b"RF64\xff\xff\xff\xff", b"ds64", size)
    assert int.from_bytes(data[20:28], "little") == size - 8
    assert int.from_bytes(data[28:36], "little") == 4 * channels * 3000
    assert int.from_bytes(data[36:44], "little") == 3000
    info = probe(tmp_path / "long.wav")
    assert (info.container, info.samples, info.time_reference_samples) == ("RF64", 3000, 99)
    assert np.array_equal(soundfile.read(tmp_path / "long.wav", dtype="float32", always_2d=True)[0].T, sound)
    assert file_samples(tmp_path / "long.wav") == 3000


def test_a_header_of_more_than_4_gb_carries_the_true_sizes(tmp_path):
    writer = AudioWriter(tmp_path / "stem.wav", 44100, 2)
    writer.samples = 600_000_000  # as if they had been written
    head = writer._head()
    writer.samples = 0
    writer.close()
    assert head[:4] == b"RF64"
    assert int.from_bytes(head[28:36], "little") == 4_800_000_000
    assert len(head) == (tmp_path / "stem.wav").stat().st_size, "the header's own length never changes"


def test_a_file_of_no_samples_is_a_file(tmp_path):
    write(tmp_path / "stem.wav", signals.silence(0))
    assert file_samples(tmp_path / "stem.wav") == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_never_written(tmp_path, value):
    sound = signals.noise(100)
    sound[1, 50] = value
    with pytest.raises(OutputError, match="NaN or infinity"):
        write(tmp_path / "stem.wav", sound)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_number_of_channels_is_refused(tmp_path):
    with pytest.raises(OutputError, match="takes 2 channels"), AudioWriter(tmp_path / "stem.wav", 44100, 2) as writer:
        writer.write(signals.noise(10, channels=1))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_subtype_is_refused(tmp_path):
    with pytest.raises(OutputError, match="choose one of FLOAT, PCM_16, PCM_24"):
        AudioWriter(tmp_path / "stem.wav", 44100, 2, subtype="PCM_8")


def test_a_file_that_is_given_up_is_removed(tmp_path):
    with pytest.raises(KeyError), AudioWriter(tmp_path / "stem.wav", 44100, 2) as writer:
        writer.write(signals.noise(100_000))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write .*: No such file"):
        AudioWriter(tmp_path / "missing" / "stem.wav", 44100, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("samples", [10, 1_000_000])
def test_a_full_disk_is_called_so(samples):
    """Noticed while writing, or when the last bytes are flushed."""
    with pytest.raises(NoSpaceLeft, match="disk is full") as refusal, AudioWriter("/dev/full", 44100, 2) as writer:
        writer.write(signals.noise(samples))
    assert refusal.value.retryable
    assert Path("/dev/full").exists()


LIMITED = """
import resource, sys
import numpy as np
from tsbs_daw.audio.writer import AudioWriter
from tsbs_daw.core.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with AudioWriter(sys.argv[1], 44100, 2) as writer:
        for _ in range(100):
            writer.write(np.zeros((2, 1000), np.float32))
except OutputError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_a_file_system_that_takes_no_such_file_is_called_so(tmp_path):
    arguments = [sys.executable, "-c", LIMITED, str(tmp_path / "stem.wav")]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert said.startswith("OutputError")
    assert "too large for the file system" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lost_its_end_is_not_reported_as_written(tmp_path):
    write(tmp_path / "stem.wav", signals.noise(1000))
    with (tmp_path / "stem.wav").open("r+b") as file:
        file.truncate((tmp_path / "stem.wav").stat().st_size - 8)
    with pytest.raises(OutputError, match="is not intact after writing"):
        file_samples(tmp_path / "stem.wav")


def test_a_loss_between_writing_and_closing_is_noticed(tmp_path):
    writer = AudioWriter(tmp_path / "stem.wav", 44100, 2)
    writer.write(signals.noise(1000))
    writer.samples += 1  # what a disk that drops a write looks like
    with pytest.raises(OutputError):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_is_closing_once(tmp_path):
    writer = AudioWriter(tmp_path / "stem.wav", 44100, 2)
    writer.close()
    writer.close()
    with pytest.raises(OutputError, match="already closed"):
        writer.write(signals.noise(10))
