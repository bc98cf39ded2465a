"""The decoder as a process: what happens when it hangs, crashes, swells, or loses its parent."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import signals
from timeouts import PATIENCE_S

from tsbs_daw.audio.decoder import STALL_S, DecoderProcess
from tsbs_daw.audio.read import open_audio, probe
from tsbs_daw.core.errors import UnreadableAudio

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def large_wav(path: Path, seconds: int = 120) -> Path:
    """A WAV of silence that is larger than any pipe, and takes no room on the disk."""
    header = signals.wav_bytes(signals.silence(0), data_size=seconds * 44100 * 4)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + seconds * 44100 * 4)
    return path


@posix
def test_a_decoder_that_hangs_is_killed_and_reported(tmp_path):
    with open_audio(large_wav(tmp_path / "song.wav")) as reader:
        reader.read(1000)
        reader._decoder.stall_s = 1.0  # not while it starts, which may take longer on a busy machine
        process = reader._decoder.process
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(UnreadableAudio, match=r"sent nothing for 1 s"):
            for _ in reader.blocks():
                pass
        assert process.poll() == -signal.SIGKILL


@posix
def test_a_pause_of_the_listener_is_no_stall(tmp_path):
    with open_audio(large_wav(tmp_path / "song.wav", 10)) as reader:
        first = reader.read(1000).shape[1]
        reader._decoder.stall_s = 2.0
        time.sleep(2.5)
        early = reader.read(100_000).shape[1]  # the decoder has worked ahead by as much, and more
        reader._decoder.stall_s = STALL_S  # it may be slow from here on
        assert first + early + sum(block.shape[1] for block in reader.blocks()) == 441_000


@posix
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSEGV"])
def test_a_decoder_that_crashes_is_reported(tmp_path, number):
    with open_audio(large_wav(tmp_path / "song.wav")) as reader:
        reader.read(1000)
        os.kill(reader._decoder.process.pid, getattr(signal, number))
        with pytest.raises(UnreadableAudio, match=r"decoder (crashed|was killed)"):
            for _ in reader.blocks():
                pass


@posix
def test_signals_meant_for_the_parent_do_not_end_the_decoder(tmp_path):
    with open_audio(large_wav(tmp_path / "song.wav", 10)) as reader:
        reader.read(1000)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(reader._decoder.process.pid, number)
        assert sum(block.shape[1] for block in reader.blocks()) == 440_000


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not hold a process to its address space")
def test_a_decoder_that_swells_is_stopped_by_its_limit(tmp_path):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(1000))
    plan = {"start_samples": 0, "discard": False, "block_samples": 1 << 28, "step_samples": 1024, "window": None}
    decoder = DecoderProcess(path, plan, memory_bytes=1 << 30)
    try:
        assert decoder.receive()[0] == b"H"
        tag, body = decoder.receive()
        assert (tag, json.loads(bytes(body))["kind"]) == (b"X", "memory")
    finally:
        decoder.close()


def test_a_decoder_that_cannot_start_is_reported(tmp_path):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(1000))
    decoder = DecoderProcess(path, {"nonsense": 1})
    try:
        tag, body = decoder.receive()
        assert (tag, json.loads(bytes(body))["kind"]) == (b"X", "internal")
    finally:
        decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_decoder_ends_when_its_parent_is_killed(tmp_path):
    script = (
        "import sys, time; from tsbs_daw.audio.read import open_audio\n"
        "reader = open_audio(sys.argv[1]); print(reader._decoder.process.pid, flush=True); time.sleep(600)"
    )
    path = str(large_wav(tmp_path / "song.wav"))
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert _alive(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + PATIENCE_S
    while _alive(pid):
        assert time.monotonic() < deadline, "the decoder outlived its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@posix
def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableAudio, match="not a regular file"):
        probe(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableAudio, match="is a folder"):
        probe(tmp_path)
    with pytest.raises(UnreadableAudio, match="is missing from its folder"):
        probe(tmp_path / "missing.wav")


PEAK_SCRIPT = """
import json, resource, sys
from tsbs_daw.core import machine
from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError
path, start, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or None
outcome = ""
try:
    with open_audio(path, start_samples=start, length_samples=length) as reader:
        samples = sum(block.shape[1] for block in reader.blocks())
        outcome = str(samples)
except AudioError as error:
    outcome = type(error).__name__
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([outcome, machine.own_peak_bytes() + children]))
"""


def outcome_and_peak_mb(path: Path, start: int = 0, length: int = 0) -> tuple[str, float]:
    """What came of reading a file, and the most memory that it took, of reader and decoder together."""
    arguments = [sys.executable, "-c", PEAK_SCRIPT, str(path), str(start), str(length)]
    outcome, peak_bytes = json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    return outcome, peak_bytes / (1 << 20)


@posix
def test_huge_claims_are_refused_in_little_memory(tmp_path):
    flac = bytearray(signals.encoded(signals.noise(50_000), 44100, "FLAC", "PCM_16"))
    flac[21] |= 0x0F  # 60 thousand million samples
    (tmp_path / "song.flac").write_bytes(flac)
    size = struct.pack("<QQQI", 1 << 50, 1 << 49, 1 << 47, 0)
    sound = signals.noise(1000)
    rf64 = signals.wav_bytes(sound, magic=b"RF64", data_size=0xFFFFFFFF, before=signals.chunk(b"ds64", size))
    (tmp_path / "song.wav").write_bytes(rf64)
    for name in ("song.flac", "song.wav"):
        outcome, peak_mb = outcome_and_peak_mb(tmp_path / name)
        assert outcome == "TruncatedAudio"
        assert peak_mb < 300


def large_rf64(path: Path, data_bytes: int, tail: bytes) -> Path:
    """An RF64 of mono 16-bit silence with a sound at its end."""
    size = struct.pack("<QQQI", data_bytes + 100, data_bytes, data_bytes // 2, 0)
    header = signals.wav_bytes(
        signals.silence(0, channels=1), magic=b"RF64", data_size=0xFFFFFFFF, before=signals.chunk(b"ds64", size)
    )
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + data_bytes - len(tail))
        file.write(tail)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files")
def test_an_rf64_beyond_4_gb_is_read_at_its_far_end(tmp_path):
    path = large_rf64(tmp_path / "song.wav", 5_000_000_000, b"\0\x40" * 1000)
    info = probe(path)
    assert (info.container, info.samples) == ("RF64", 2_500_000_000)
    with open_audio(path, start_samples=2_500_000_000 - 1500) as reader:
        found = reader.read(2000)
    assert found.shape == (1, 1500)
    assert (found[0] == [0.0] * 500 + [0.5] * 1000).all()
    outcome, peak_mb = outcome_and_peak_mb(path, length=50_000_000)
    assert outcome == "50000000"
    assert peak_mb < 300


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files")
def test_an_rf64_beyond_4_gb_is_streamed_from_end_to_end(tmp_path):
    path = large_rf64(tmp_path / "song.wav", 5_000_000_000, b"\0\x40" * 1000)
    outcome, peak_mb = outcome_and_peak_mb(path)
    assert outcome == "2500000000"
    assert peak_mb < 300
