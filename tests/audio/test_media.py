"""AAC, ALAC and video files: the sound starts and ends at the sample it was made with."""

from __future__ import annotations

import importlib.util
import os
import signal
import struct
import sys

import media
import numpy as np
import pytest
import signals

from tsbs_daw.audio import read
from tsbs_daw.audio.probe import inspect, seems_unfinished
from tsbs_daw.audio.read import open_audio, probe
from tsbs_daw.audio.tags import Tags, read_tags, write_tags
from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnreadableAudio, UnsupportedAudio

pytestmark = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs the extra [media]")

JPEG = b"\xff\xd8\xff" + bytes(99)
SAMPLES = 60_003  # no multiple of any frame

KINDS = {
    # ending: codec, sample format, rate, whether the file says how long its sound is to the sample
    ".m4a": ("aac", "fltp", 44100, True),
    ".mov": ("aac", "fltp", 48000, True),
    ".mp4": ("aac", "fltp", 32000, True),
    ".alac.m4a": ("alac", "s16p", 44100, True),
    ".alac24.m4a": ("alac", "s32p", 96000, True),
    ".pcm.mov": ("pcm_s16be", "s16", 44100, True),
    ".opus.mp4": ("libopus", "flt", 48000, True),
    ".opus.webm": ("libopus", "flt", 48000, True),
    ".flac.mkv": ("flac", "s16", 44100, True),
    ".aac.mkv": ("aac", "fltp", 44100, False),
}


def coloured_noise(samples: int, channels: int = 2) -> np.ndarray:
    """Noise that falls to the treble, which no codec can do without."""
    spectrum = np.fft.rfft(signals.noise(samples, channels=channels))
    spectrum /= 1 + np.arange(spectrum.shape[1]) / samples * 100
    return np.fft.irfft(spectrum, samples).astype(np.float32)


def found_in(path, **options) -> np.ndarray:
    with open_audio(path, **options) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def lag(sound: np.ndarray, other: np.ndarray) -> int:
    size = 1 << (2 * max(sound.shape[1], other.shape[1])).bit_length()
    match = np.fft.irfft(np.fft.rfft(other[0], size) * np.conj(np.fft.rfft(sound[0], size)))
    best = int(match.argmax())
    return best if best < size // 2 else best - size


def written(path, ending: str, sound: np.ndarray, **options):
    codec, sample_format, rate, _ = KINDS[ending]
    name = path / f"song{ending}"
    return media.write_media(name, [sound], rate, codec=codec, sample_format=sample_format, **options)


@pytest.mark.parametrize(("ending", "channels"), [*((ending, 2) for ending in KINDS), (".m4a", 1), (".opus.webm", 1)])
def test_the_sound_starts_at_its_first_sample_and_has_its_length(tmp_path, ending, channels):
    sound = coloured_noise(SAMPLES, channels)
    path = written(tmp_path, ending, sound)
    with open_audio(path) as reader:
        found = np.concatenate(list(reader.blocks()), axis=1)
        info = reader.info
    assert (info.sample_rate, info.channels, info.warnings) == (KINDS[ending][2], channels, ())
    assert lag(sound, found) == 0
    if KINDS[ending][3]:
        assert found.shape[1] == SAMPLES
        assert info.samples in (SAMPLES, None)
    else:
        assert SAMPLES <= found.shape[1] < SAMPLES + 1024, "the last frame is filled up, and nothing says how far"
    if "alac" in ending or "pcm" in ending or "flac" in ending:
        assert np.abs(found - sound).max() <= 2.0**-15


@pytest.mark.parametrize("ending", [".m4a", ".opus.webm", ".alac.m4a"])
def test_a_portion_is_exactly_that_part_of_the_whole(tmp_path, ending):
    path = written(tmp_path, ending, coloured_noise(SAMPLES))
    whole = found_in(path)
    for start, length in ((0, 1), (1023, 5000), (40_000, 20_003)):
        portion = found_in(path, start_samples=start, length_samples=length)
        assert np.array_equal(portion, whole[:, start : start + length])


def test_a_video_gives_its_sound_and_says_how_late_it_comes(tmp_path):
    sound = coloured_noise(SAMPLES)
    path = media.write_media(tmp_path / "clip.mp4", [sound], picture_s=2.0)
    assert lag(sound, found_in(path)) == 0
    assert probe(path).warnings == ()
    lossless = {"codec": "alac", "sample_format": "s16p"}
    path = media.write_media(tmp_path / "late.mp4", [sound], picture_s=2.0, late_samples=22050, **lossless)
    assert lag(sound, found_in(path)) == 0
    (warning,) = probe(path).warnings
    assert "has audio that starts 0.500 s after its video" in warning


def test_a_video_without_sound_is_refused(tmp_path):
    for ending in ("mp4", "mkv"):
        path = media.write_media(tmp_path / f"clip.{ending}", [], picture_s=0.5)
        with pytest.raises(UnreadableAudio, match=r"a video without audio|it has no audio"):
            probe(path)
    path = media.write_media(tmp_path / "empty.mkv", [signals.silence(0)], picture_s=0.5)
    with pytest.raises(UnreadableAudio, match="has no audio"):
        probe(path)


def test_of_several_tracks_the_first_is_taken(tmp_path):
    sounds = [coloured_noise(SAMPLES), signals.silence(SAMPLES)]
    path = media.write_media(tmp_path / "song.mp4", sounds)
    assert lag(sounds[0], found_in(path)) == 0
    assert "has 2 audio tracks; the first is used" in probe(path).warnings[0]


def test_what_does_not_say_its_encoder_s_delay_says_so(tmp_path):
    """Such a file cannot be placed exactly by anybody."""
    sound = coloured_noise(SAMPLES)
    frames = media.write_media(tmp_path / "song.aac", [sound], container="adts")
    bare = tmp_path / "bare.m4a"
    bare.write_bytes(media.without_box(media.write_media(tmp_path / "a.m4a", [sound]).read_bytes(), b"edts"))
    for path in (frames, bare):
        assert "1000 to 2100 samples late" in probe(path).warnings[0]
        assert lag(sound, found_in(path)) == 1024


def test_the_sample_count_of_itunes_is_believed(tmp_path):
    """Without an edit list, as old iTunes wrote it: delay, padding and length stand in a tag."""
    from mutagen.mp4 import MP4, MP4FreeForm

    sound = coloured_noise(SAMPLES)
    path = media.write_media(tmp_path / "a.m4a", [sound])
    path.write_bytes(media.without_box(path.read_bytes(), b"edts"))
    file = MP4(path)
    counts = f" 00000000 {1024:08X} {-(SAMPLES + 1024) % 1024:08X} {SAMPLES:016X}" + " 00000000" * 8
    file["----:com.apple.iTunes:iTunSMPB"] = [MP4FreeForm(counts.encode())]
    file.save()
    assert probe(path).warnings == ()
    assert probe(path).samples == SAMPLES
    assert lag(sound, found_in(path)) == 0


def test_a_fragmented_file_with_an_edit_list_is_placed(tmp_path):
    sound = coloured_noise(SAMPLES)
    flags = {"movflags": "frag_keyframe+delay_moov"}
    path = media.write_media(tmp_path / "song.mp4", [sound], options=flags)
    found = found_in(path)
    assert (lag(sound, found), probe(path).samples) == (0, None)
    assert SAMPLES <= found.shape[1] < SAMPLES + 1024


@pytest.mark.parametrize("ending", [".m4a", ".mov", ".opus.webm", ".aac.mkv"])
@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_a_file_cut_anywhere_is_known_to_be(tmp_path, ending, options):
    if options and ending.endswith(("webm", "mkv")):
        pytest.skip("an option of MP4")
    path = written(tmp_path, ending, coloured_noise(SAMPLES), options=options)
    data = path.read_bytes()
    assert not seems_unfinished(path)
    for share in (0.01, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        assert seems_unfinished(path)
        with pytest.raises(TruncatedAudio, match=r"cut short|without an index|inside its header"):
            probe(path)


def test_what_is_there_of_a_cut_file_can_be_salvaged(tmp_path):
    sound = coloured_noise(SAMPLES)
    path = written(tmp_path, ".m4a", sound, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_audio(path, salvage=True) as reader:
        found = np.concatenate(list(reader.blocks()), axis=1)
    assert SAMPLES // 4 < found.shape[1] < SAMPLES
    assert lag(sound[:, : found.shape[1]], found) == 0
    # The one that is cut in two. Those behind it are missing, and the time that is lost says so.
    assert any("in 1 of its packets could not be decoded" in warning for warning in reader.info.warnings)


def test_a_protected_song_is_refused(tmp_path):
    path = written(tmp_path, ".m4a", coloured_noise(SAMPLES))
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"drms", 1))
    with pytest.raises(UnsupportedAudio, match="copy-protected"):
        probe(path)


def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch):
    path = written(tmp_path, ".m4a", coloured_noise(SAMPLES))
    monkeypatch.setattr(read, "media_is_installed", lambda: False)
    with pytest.raises(UnsupportedAudio, match=r"MP4, which needs an extra: pip install 'tsbs-daw\[media\]', or conv"):
        probe(path)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_decoder_that_hangs_is_killed_and_reported(tmp_path):
    path = media.write_media(tmp_path / "song.m4a", [signals.noise(44100 * 60)], codec="alac", sample_format="s16p")
    with open_audio(path) as reader:
        reader.read(1000)
        reader._decoder.stall_s = 1.0
        os.kill(reader._decoder.process.pid, signal.SIGSTOP)
        with pytest.raises(UnreadableAudio, match=r"sent nothing for 1 s"):
            for _ in reader.blocks():
                pass
    assert reader._decoder.process.poll() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not hold a process to its address space")
def test_a_decoder_that_swells_is_stopped_by_its_limit(tmp_path):
    path = written(tmp_path, ".m4a", coloured_noise(SAMPLES))
    with pytest.raises(AudioError):
        found_in(path, memory_bytes=40 << 20)


def test_mutated_files_give_sound_or_a_reason(tmp_path):
    rng, refused = np.random.default_rng(5), 0
    files = [written(tmp_path, ending, coloured_noise(20_000)) for ending in (".m4a", ".opus.webm", ".alac.m4a")]
    files.append(media.write_media(tmp_path / "song.aac", [coloured_noise(20_000)], container="adts"))
    for number in range(96):
        data = bytearray(files[number % 4].read_bytes())
        head = data.find(b"moov") if b"moov" in data and number % 3 else 0
        for place in rng.integers(head, len(data), 6):
            data[place] = rng.integers(256)
        path = tmp_path / f"mutated{files[number % 4].suffix}"
        path.write_bytes(data)
        try:
            inspect(path)
            if number % 12 == 0:
                found = found_in(path, salvage=bool(number % 24))
                assert 0 < found.shape[1] < 2_000_000
        except AudioError as error:
            refused += 1
            assert str(error).isprintable()
    assert 5 < refused < 91


def test_boxes_without_end_take_no_endless_time(tmp_path):
    empty = struct.pack(">I4s", 8, b"trak") * 200_000
    (tmp_path / "song.mp4").write_bytes(struct.pack(">I4s", 8 + len(empty), b"moov") + empty)
    with pytest.raises(UnreadableAudio, match="without audio"):
        inspect(tmp_path / "song.mp4")


def test_tags_of_an_m4a_are_read_and_written_and_the_sound_stays(tmp_path):
    path = written(tmp_path, ".m4a", coloured_noise(SAMPLES))
    before = found_in(path)
    tags = Tags(
        "Björk", "Jóga", "Homogenic", "1997", "Electronic", "3/10", "été", b"\xff\xd8\xff" + bytes(99), "image/jpeg"
    )
    write_tags(path, tags, bpm=127.6, key="A minor")
    assert read_tags(path) == tags
    assert np.array_equal(found_in(path), before)


@pytest.mark.parametrize(("text", "found"), [("3", "3"), ("3/12", "3/12"), ("3/x", "3"), ("A3/12", ""), ("99999", "")])
def test_a_track_number_that_an_m4a_cannot_hold_is_left_out(tmp_path, text, found):
    path = written(tmp_path, ".m4a", coloured_noise(4096))
    write_tags(path, Tags(track_number=text))
    assert read_tags(path).track_number == found
