"""Files end to end, counts that cover the beginning, and damage in the formats that are not MP3 or raw AAC."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
import signals
from harness.audio_files import SECOND, SOUND, aac, read_all

from tsbs_daw.audio import read
from tsbs_daw.audio.probe import seems_unfinished
from tsbs_daw.core.errors import AudioError, UnreadableAudio, UnsupportedAudio

GARBAGE = np.random.default_rng(3).bytes(5000)


def encoded(container: str, subtype: str, rate: int = 44100, channels: int = 2) -> bytes:
    return signals.encoded(SOUND[:channels, : 3 * rate], rate, container, subtype)


def flac(rate: int = 44100, channels: int = 2) -> bytes:
    return encoded("FLAC", "PCM_16", rate, channels)


def stating(data: bytes, samples: int) -> bytes:
    """The FLAC with another number of samples in its header; 0: unknown."""
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


def test_a_flac_of_0_hz_is_refused(tmp_path):
    data = flac()
    packed = int.from_bytes(data[18:26], "big") & (1 << 44) - 1
    (tmp_path / "song.flac").write_bytes(data[:18] + packed.to_bytes(8, "big") + data[26:])
    for salvage in (False, True):
        with pytest.raises(UnreadableAudio, match=r"damaged header \(a sample rate of 0 Hz\); copy it again"):
            read_all(tmp_path / "song.flac", salvage=salvage)


def frames(data: bytes) -> bytes:
    return data[data.index(b"\xff\xf8") :]


JOINED = {
    "wav": ("WAV", "PCM_16", 44100),
    "rf64": ("RF64", "PCM_16", 44100),
    "w64": ("W64", "PCM_16", 44100),
    "aiff": ("AIFF", "PCM_16", 44100),
    "caf": ("CAF", "PCM_16", 44100),
    "au": ("AU", "PCM_16", 44100),
    "flac": ("FLAC", "PCM_16", 44100),
    "ogg": ("OGG", "VORBIS", 44100),
    "opus": ("OGG", "OPUS", 48000),
}


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("channels", [2, 1])
def test_files_end_to_end_are_refused_by_name(tmp_path, name, channels):
    container, subtype, rate = JOINED[name]
    path, first = tmp_path / f"song.{name}", encoded(container, subtype, rate)
    path.write_bytes(first + encoded(container, subtype, rate, channels))
    with pytest.raises(UnsupportedAudio, match=r"end to end|changes to 1 channel at 3\.0 s"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert abs(found.shape[1] - 3 * rate) < 1000
    assert "end to end" in warnings or "changes to" in warnings


@pytest.mark.parametrize("second", [{}, {"rate": 48000}, {"channels": 1}])
@pytest.mark.parametrize(("container", "name"), [("mp4", "MP4s"), ("matroska", "Matroska files")])
def test_containers_end_to_end_are_refused_by_name(tmp_path, container, name, second):
    path = tmp_path / "song"
    path.write_bytes(aac(container=container) + aac(container=container, **second))
    with pytest.raises(UnsupportedAudio, match=f"several {name} end to end"):
        read_all(path)
    assert 3 * SECOND <= read_all(path, salvage=True)[0].shape[1] < 3.2 * SECOND


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize(("second", "place"), [({"rate": 48000}, "48000 Hz"), ({"channels": 1}, "1 channel")])
def test_a_flac_that_changes_midway_is_refused_with_the_place(tmp_path, second, place, states_length):
    path, data = tmp_path / "song.flac", flac()
    path.write_bytes((data if states_length else stating(data, 0)) + frames(flac(**second)))
    with pytest.raises(UnsupportedAudio, match=f"changes to {place} at 3.0 s"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert found.shape[1] == 3 * SECOND
    assert place in warnings


@pytest.mark.parametrize("stated", [10, SECOND, 3 * SECOND - 1])
def test_a_flac_that_counts_the_beginning_is_read_whole(tmp_path, stated):
    path, data = tmp_path / "song.flac", flac()
    path.write_bytes(data)
    whole = read_all(path)[0]
    path.write_bytes(stating(data, stated))
    found, warnings = read_all(path)
    assert np.array_equal(found, whole)
    assert f"counts {stated} of its {3 * SECOND} samples; all of them are read" in warnings


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize("kind", ["overwritten", "inserted", "removed"])
def test_a_flac_is_salvaged_after_the_damage(tmp_path, kind, states_length):
    path, data = tmp_path / "song.flac", flac()
    path.write_bytes(data)
    whole = read_all(path)[0]
    data = data if states_length else stating(data, 0)
    middle = len(data) // 2
    after = {"overwritten": data[middle + 5000 :], "inserted": data[middle:], "removed": data[middle + 30_000 :]}[kind]
    path.write_bytes(data[:middle] + (b"" if kind == "removed" else GARBAGE) + after)
    with pytest.raises(UnreadableAudio, match="is damaged"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert 3 * SECOND - (6 if kind == "removed" else 3) * 4096 * 2 < found.shape[1] < 3 * SECOND
    assert np.array_equal(found[:, -SECOND:], whole[:, -SECOND:])
    assert "lost" in warnings


def test_where_the_sound_ends_is_counted_from_the_start_of_the_song(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_RESUMPTIONS", 1)
    path, data = tmp_path / "song.flac", bytearray(flac())
    for part in (1 / 3, 2 / 3):
        place = round(part * len(data))
        data[place : place + 40] = GARBAGE[:40]
    path.write_bytes(data)
    found, warnings = read_all(path, salvage=True)
    stated = re.search(r"is damaged after sample (\d+); the rest is left out", warnings)
    lost = re.search(r"(\d+) samples \(.*? s\) are lost", warnings)
    assert int(stated[1]) == found.shape[1] + int(lost[1])


@pytest.mark.parametrize(("name", "rate"), [("VORBIS", 44100), ("OPUS", 48000)])
def test_an_ogg_whose_pages_are_missing_is_refused_and_the_loss_is_stated(tmp_path, name, rate):
    path, data = tmp_path / "song.ogg", encoded("OGG", name, rate)
    middle = len(data) // 2
    path.write_bytes(data[:middle] + data[middle + 9000 :])
    with pytest.raises(UnreadableAudio, match=r"is damaged at \d\.\d s: pages of its Ogg stream"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert 0 < found.shape[1] < 3 * rate
    assert "s is lost" in warnings


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_damage_in_a_container_is_refused_and_the_loss_is_stated(tmp_path, container):
    path, data = tmp_path / "song", aac(container=container)
    middle = len(data) // 2
    path.write_bytes(data[:middle] + GARBAGE + data[middle + 5000 :])
    with pytest.raises(AudioError, match="is damaged"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert found.shape[1] > SECOND
    assert "left out" in warnings


@pytest.mark.parametrize("riff_size", [None, 0, 36 + 1000])
def test_a_wav_whose_header_counts_the_beginning_is_not_cut_without_a_word(tmp_path, riff_size):
    path, sound = tmp_path / "song.wav", SOUND[:, :SECOND]
    path.write_bytes(signals.wav_bytes(sound, data_size=1000, riff_size=riff_size))
    if riff_size == 36 + 1000:  # the header agrees with itself: a recorder that crashed, or something appended
        with pytest.raises(UnreadableAudio, match=r"counts 1000 of its \d+ bytes of audio"):
            read_all(path)
    found, warnings = read_all(path, salvage=riff_size == 36 + 1000)
    assert found.shape[1] == SECOND
    assert "counts 1000 of its" in warnings


def test_an_au_that_counts_the_beginning_is_read_whole(tmp_path):
    path, data = tmp_path / "song.au", bytearray(encoded("AU", "PCM_16"))
    data[8:12] = struct.pack(">I", 4000)
    path.write_bytes(data)
    found, warnings = read_all(path)
    assert found.shape[1] == 3 * SECOND
    assert "all of them are read" in warnings


@pytest.mark.parametrize("start", [b"fLaC\0\0\0\x22" + bytes(34), flac()[:42], flac()[:60_000]])
def test_a_preallocated_flac_is_unfinished_and_costs_little_to_look_at(tmp_path, monkeypatch, start):
    """Sixty million zeros after the header: what is read of them is bounded."""
    from tsbs_daw.audio.headers import flac as reader

    path, reads = tmp_path / "song.flac", []
    with path.open("wb") as file:
        file.write(start)
        file.truncate(60_000_000)
    monkeypatch.setattr(reader, "unpack_at", counting(reader.unpack_at, reads))
    assert seems_unfinished(path)
    assert len(reads) < 100


def counting(function, calls: list):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted
