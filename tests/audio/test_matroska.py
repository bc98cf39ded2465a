"""Matroska and WebM: damage is told with its place, and salvage goes on with the next cluster."""

from __future__ import annotations

import importlib.util
import re

import media
import numpy as np
import pytest
import signals

from tsbs_daw.audio.headers import streams
from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnreadableAudio

pytestmark = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs the extra [media]")

CLUSTER = streams.CLUSTER
RATE, SAMPLES = 44100, 4 * 44100 + 3
FRAME = 4608  # samples, of the FLAC encoder


def song(folder, codec: str = "flac", **options) -> bytes:
    sample_format, rate = {"flac": ("s16", RATE), "libopus": ("flt", 48000)}[codec]
    sound = signals.noise(SAMPLES)
    options = {"cluster_time_limit": "500", **options}
    path = folder / "made.mka"
    return media.write_media(
        path, [sound], rate, codec=codec, sample_format=sample_format, options=options
    ).read_bytes()


def clusters(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(CLUSTER), data)]


def heard(folder, data: bytes, *, salvage: bool = False) -> tuple[np.ndarray, str]:
    path = folder / "song.mka"
    path.write_bytes(data)
    with open_audio(path, salvage=salvage) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), " ".join(reader.info.warnings)


def lost_name(data: bytes, at: int) -> bytes:
    return data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]


def lost_length(data: bytes, at: int) -> bytes:
    return data[:at] + CLUSTER + bytes(4) + data[at + 8 :]


def zeros(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(40_000) + data[at + 40_000 :]


def noise(data: bytes, at: int) -> bytes:
    return data[: at - 2000] + np.random.default_rng(1).bytes(9000) + data[at + 7000 :]


def missing(data: bytes, at: int) -> bytes:
    return data[: at + 500] + data[at + 5000 :]


@pytest.mark.parametrize("length", ["stated", "live"])
@pytest.mark.parametrize("codec", ["flac", "libopus"])
@pytest.mark.parametrize("damage", [lost_name, lost_length, zeros, noise, missing])
def test_damage_is_refused_with_the_place_and_salvage_goes_on_behind_it(tmp_path, codec, damage, length):
    data = song(tmp_path, codec, **({"live": "1"} if length == "live" else {}))
    whole, warnings = heard(tmp_path, data)
    assert not re.search("damaged|missing|cut", warnings)
    places = clusters(data)
    if codec == "libopus" and damage is zeros:
        damaged = data[: places[3]] + bytes(3000) + data[places[3] + 3000 :]
    else:
        damaged = damage(data, places[3])
    with pytest.raises(AudioError) as refused:
        heard(tmp_path, damaged)
    assert isinstance(refused.value, (UnreadableAudio, TruncatedAudio))
    at_s, lost_s = map(float, re.search(r"is damaged at (\S+) s: up to (\S+) s is lost", str(refused.value)).groups())
    assert 0.5 < at_s < 2.5
    assert 0 < lost_s < 1.5
    sound, warnings = heard(tmp_path, damaged, salvage=True)
    assert f"is damaged at {at_s} s" in warnings
    assert whole.shape[1] - 1.7 * 48000 < sound.shape[1] < whole.shape[1]
    if codec == "flac":
        assert np.array_equal(sound[:, : RATE // 2], whole[:, : RATE // 2])
        assert np.array_equal(sound[:, -RATE:], whole[:, -RATE:])


def test_a_pause_of_a_recording_is_told(tmp_path):
    data = song(tmp_path, live="1")
    places = clusters(data)
    paused = data[: places[2]] + data[places[4] :]
    sound, warnings = heard(tmp_path, paused)
    told = re.search(r"has no audio from (\S+) to (\S+) s; what is missing is left out, not silent", warnings)
    missing_s = float(told[2]) - float(told[1]) - FRAME / RATE  # from the start of the last block to that of the next
    assert sound.shape[1] == pytest.approx(SAMPLES - missing_s * RATE, abs=0.1 * RATE)


def test_a_live_recording_that_was_cut_off_keeps_what_it_has(tmp_path):
    data = song(tmp_path, live="1")
    whole, _ = heard(tmp_path, data)
    sound, warnings = heard(tmp_path, data[:-700])
    assert "does not state its length; it is read to the end of the file" in warnings
    assert np.array_equal(sound, whole[:, : sound.shape[1]])


def test_a_video_is_walked_as_well_and_has_no_gaps(tmp_path):
    path = media.write_media(tmp_path / "clip.mkv", [signals.noise(SAMPLES)], picture_s=4.0)
    header = inspect(path)
    assert (header.fault, header.warnings) == (None, ())
    data = path.read_bytes()
    path.write_bytes(lost_name(data, clusters(data)[0]))
    with pytest.raises(UnreadableAudio, match=r"is damaged at 0\.0 s"):
        inspect(path)


def test_elements_that_state_nonsense_take_no_endless_time(tmp_path, monkeypatch):
    rng, data = np.random.default_rng(3), song(tmp_path)
    monkeypatch.setattr(streams, "MAX_DAMAGES", 5)
    path = tmp_path / "song.mka"
    for _ in range(60):
        mutated = bytearray(data)
        for place in rng.integers(60, len(data), 8):
            mutated[place] = rng.integers(256)
        path.write_bytes(mutated)
        try:
            inspect(path)
        except AudioError as error:
            assert str(error).isprintable()
