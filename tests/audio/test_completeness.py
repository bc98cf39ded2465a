"""Whether more of a sound file is to come. Every file is written by the real encoder, then cut anywhere."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path

import media
import numpy as np
import pytest
import signals
import soundfile

from tsbs_daw.audio import probe
from tsbs_daw.audio.probe import seems_unfinished

COMPLETE = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("RF64", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
]


def encoded(kind: str, subtype: str, samples: int = 30_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signals.noise(samples, channels=2).T, 44100, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.fixture
def unfinished(tmp_path: Path):
    def ask(data: bytes) -> bool:
        path = tmp_path / "song.wav"
        path.write_bytes(data)
        return seems_unfinished(path)

    return ask


@pytest.mark.parametrize(("kind", "subtype"), COMPLETE)
def test_a_complete_file_is_finished(unfinished, kind, subtype):
    assert not unfinished(encoded(kind, subtype))


@pytest.mark.parametrize(("kind", "subtype"), COMPLETE)
def test_a_file_cut_anywhere_is_not(unfinished, kind, subtype):
    data = encoded(kind, subtype)
    # of the last frame of a FLAC only the beginning can be found: a cut within that one frame is left to the reader
    end = len(data) - 4096 * 2 * 4 if kind == "FLAC" else len(data)
    cuts = random.Random(1).sample(range(12, end), 60)
    assert [cut for cut in cuts if not unfinished(data[:cut])] == []


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(1_000_000)])
def test_an_empty_or_preallocated_file_is_not(unfinished, data):
    assert unfinished(data)


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    reads = 0
    taken_bytes = 0

    def read(self, count: int = -1) -> bytes:
        found = super().read(count)
        Counted.reads += 1
        Counted.taken_bytes += len(found)
        return found


PREALLOCATED_BYTES = 60_000_000


def coded(folder: Path, kind: str) -> bytes:
    sound = signals.noise(60_000)
    if kind in ("MP3", "OGG", "FLAC"):
        return signals.encoded(sound, 44100, kind, {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS", "FLAC": "PCM_16"}[kind])
    pytest.importorskip("av")
    if kind in ("mka", "webm"):
        return media.write_media(folder / "a.mka", [sound], codec="flac", sample_format="s16").read_bytes()
    if kind == "aac":
        return media.write_media(folder / "a.aac", [sound], container="adts").read_bytes()
    return media.write_media(folder / "a.m4a", [sound], options={"movflags": "faststart"}).read_bytes()


@pytest.mark.parametrize("kind", ["MP3", "OGG", "FLAC", "mka", "aac", "m4a"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_coded_file_that_ends_in_zeros_is_still_being_copied(tmp_path, kind, share):
    data, path = coded(tmp_path, kind), tmp_path / "song"
    path.write_bytes(data)
    assert not seems_unfinished(path)
    path.write_bytes(data[: int(len(data) * share)])
    os.truncate(path, 2_000_000)
    assert seems_unfinished(path)


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("AIFF", "PCM_24"), ("RF64", "FLOAT"), ("CAF", "PCM_16")]
)
def test_silence_at_the_end_of_uncoded_sound_is_sound(unfinished, kind, subtype):
    sound = np.concatenate((signals.noise(30_000), signals.silence(300_000)), axis=1)
    assert not unfinished(signals.encoded(sound, 44100, kind, subtype))


@pytest.mark.parametrize("kept", ["streaminfo", "metadata", "half", "all but the last frames"])
@pytest.mark.parametrize("comments", [0, 200])
def test_a_look_at_a_preallocated_flac_reads_a_bounded_part_of_it(tmp_path, monkeypatch, kept, comments):
    """It is asked in every look of its watch folder, so that all other songs wait for the answer."""
    data = encoded("FLAC", "PCM_16")
    info, frames = data[:42], data[data.index(b"\xff\xf8") :]
    blocks = b"\x04\0\0\x28" + bytes(40)
    metadata = info[:4] + b"\0" + info[5:] + blocks * comments + b"\x81\0\0\0"
    keep = {"streaminfo": 42, "metadata": len(metadata), "half": len(metadata) + len(frames) // 2}
    path = tmp_path / "song.flac"
    path.write_bytes((metadata + frames)[: keep.get(kept, len(metadata) + len(frames) - 20_000)])
    os.truncate(path, PREALLOCATED_BYTES)
    monkeypatch.setattr(probe, "open_regular", Counted)
    monkeypatch.setattr(Counted, "reads", 0)
    monkeypatch.setattr(Counted, "taken_bytes", 0)
    assert seems_unfinished(path)
    assert Counted.reads < 1000
    assert Counted.taken_bytes < 1_000_000, "1.7 % of the file"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_whose_header_does_not_say_is_taken_as_it_is(unfinished, size):
    data = bytearray(encoded("WAV", "PCM_16"))
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    assert not unfinished(bytes(data[:5000]))


@pytest.mark.parametrize("data", [b"x", b"<html>" * 50, b"RIFF\0\0\0\0AVI " + bytes(50), b"%PDF-1.4" + bytes(9)])
def test_what_is_no_sound_is_left_to_the_reader(unfinished, data):
    assert not unfinished(data)


@pytest.mark.parametrize(
    "start", [b"RIFF\xff\xff\xff\xffWAVE", b"FORM\xff\xff\xff\xffAIFF", b"fLaC", b"fLaC\0\0\0\x22"]
)
def test_rubbish_after_a_known_name_neither_raises_nor_hangs(unfinished, start):
    generator = np.random.default_rng(3)
    for _ in range(100):
        unfinished(start + generator.integers(0, 256, generator.integers(0, 400), dtype=np.uint8).tobytes())
    unfinished(start + b"\xff\xf8" * 200_000)


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        seems_unfinished(tmp_path / "gone.wav")
