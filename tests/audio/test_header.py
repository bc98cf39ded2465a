"""Files that are cut, empty, hostile, or something else: each is refused with a reason, and salvaged where asked."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
import signals

from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import open_audio, probe
from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnreadableAudio, UnsupportedAudio

LENGTH = 160_000
PAGE = 64_000  # Ogg loses whole pages, of a second and more
SOUND = signals.sweep(LENGTH) + signals.noise(LENGTH, amplitude=0.05)
ENCODED = {
    ".wav": ("WAV", "FLOAT"),
    ".w64": ("W64", "PCM_24"),
    ".aiff": ("AIFF", "PCM_24"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The same sound in each format."""
    return {
        ending: signals.encoded(SOUND, 48000 if ending == ".opus" else 44100, *kind) for ending, kind in ENCODED.items()
    }


def read_all(path, **options) -> tuple[np.ndarray, tuple[str, ...]]:
    with open_audio(path, **options) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), reader.info.warnings


@pytest.mark.parametrize("ending", ENCODED)
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_cut_file_is_refused_and_can_be_salvaged(tmp_path, files, ending, kept):
    path = tmp_path / f"song{ending}"
    path.write_bytes(files[ending])
    whole, warnings = read_all(path)
    assert whole.shape == (2, LENGTH)
    assert warnings == ()
    path.write_bytes(files[ending][: int(kept * len(files[ending]))])
    with pytest.raises(
        TruncatedAudio, match=r"cut short: .* copy it again, or use the readable part with `--salvage`\.$"
    ) as no:
        read_all(path)
    assert str(path) in str(no.value)
    found, warnings = read_all(path, salvage=True)
    assert kept * LENGTH - PAGE < found.shape[1] < LENGTH
    # A lossy codec may smear the last frame that it still has.
    agreed = found.shape[1] if ending not in (".mp3", ".ogg", ".opus") else found.shape[1] - 3000
    assert np.abs(found[:, :agreed] - whole[:, :agreed]).max() < 1e-3
    assert [warning for warning in warnings if "cut short" in warning] == list(warnings)
    assert len(warnings) == 1


@pytest.mark.parametrize("ending", ENCODED)
def test_one_byte_less_is_noticed(tmp_path, files, ending):
    path = tmp_path / f"song{ending}"
    path.write_bytes(files[ending][:-1])
    with pytest.raises(TruncatedAudio):
        read_all(path)


@pytest.mark.parametrize("ending", ENCODED)
def test_a_cut_header_is_refused(tmp_path, files, ending):
    path = tmp_path / f"song{ending}"
    for length in (1, 3, 4, 11, 12, 17, 25, 37, 43):
        path.write_bytes(files[ending][:length])
        with pytest.raises(AudioError) as refusal:
            inspect(path)
        assert str(refusal.value).startswith(f"'{path}' ")
        if length < 24:  # an AU's header is no longer
            with pytest.raises(AudioError):
                read_all(path, salvage=True)


def test_mp3_tags_and_padding_are_no_damage(tmp_path, files):
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 132, 0, 1) + bytes(8)
    id3v2 = b"ID3\x03\0\0\0\0\x10\0" + bytes(2048)
    for before, after in ((id3v2, b""), (b"", b"TAG" + bytes(125)), (id3v2 + bytes(300), bytes(132) + ape)):
        (tmp_path / "song.mp3").write_bytes(before + files[".mp3"] + after)
        found, warnings = read_all(tmp_path / "song.mp3")
        assert found.shape == (2, LENGTH)
        assert warnings == ()


def test_an_mp3_without_a_xing_header_is_read_to_its_end(tmp_path, files):
    (tmp_path / "song.mp3").write_bytes(signals.without_xing(files[".mp3"]))
    assert probe(tmp_path / "song.mp3").samples is None, "only decoding can tell"
    found, warnings = read_all(tmp_path / "song.mp3")
    assert LENGTH <= found.shape[1] < LENGTH + 4 * 1152
    assert warnings == ()


def test_ogg_streams_end_to_end_are_refused_because_one_would_be_read(tmp_path, files):
    (tmp_path / "song.ogg").write_bytes(files[".ogg"] + signals.encoded(signals.noise(9000), 44100, "OGG", "VORBIS"))
    with pytest.raises(UnsupportedAudio, match="several Ogg streams"):
        probe(tmp_path / "song.ogg")


def test_flac_with_tags_around_it_is_read(tmp_path, files):
    (tmp_path / "song.flac").write_bytes(b"ID3\x03\0\0\0\0\1\0" + bytes(128) + files[".flac"] + b"TAG" + bytes(125))
    found, warnings = read_all(tmp_path / "song.flac")
    assert found.shape == (2, LENGTH)
    assert warnings == ()


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path, files):
    unknown = bytearray(files[".flac"])
    unknown[21:26] = bytes([unknown[21] & 0xF0, 0, 0, 0, 0])
    (tmp_path / "song.flac").write_bytes(unknown)
    assert probe(tmp_path / "song.flac").samples is None
    assert read_all(tmp_path / "song.flac")[0].shape == (2, LENGTH)


def test_where_nothing_can_be_salvaged_there_is_an_error_and_no_empty_sound(tmp_path, files):
    sound = files[".flac"]
    (tmp_path / "song.flac").write_bytes(sound[: sound.index(b"\xff\xf8")] + bytes(100_000))
    for salvage in (False, True):
        with pytest.raises(AudioError):
            read_all(tmp_path / "song.flac", salvage=salvage)


def test_a_damaged_flac_is_refused_and_salvaged_around_the_damage(tmp_path, files):
    whole = signals.encoded(SOUND, 44100, "FLAC", "PCM_16")
    damaged = bytearray(whole)
    middle = len(damaged) // 2
    damaged[middle : middle + 64] = bytes(64)
    (tmp_path / "song.flac").write_bytes(damaged)
    with pytest.raises(UnreadableAudio, match=r"damaged after sample \d+ .*--salvage"):
        read_all(tmp_path / "song.flac")
    found, warnings = read_all(tmp_path / "song.flac", salvage=True)
    assert LENGTH - 2 * 4096 <= found.shape[1] < LENGTH
    assert np.abs(found[:, : LENGTH // 4] - SOUND[:, : LENGTH // 4]).max() < 1e-4
    assert np.abs(found[:, -LENGTH // 4 :] - SOUND[:, -LENGTH // 4 :]).max() < 1e-4
    assert "are lost" in warnings[0]


@pytest.mark.parametrize("riff_size", [0, 36, None])
def test_a_crashed_recorders_wav_is_refused_with_a_hint_and_salvaged_whole(tmp_path, riff_size):
    (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND, data_size=0, riff_size=riff_size))
    with pytest.raises(UnreadableAudio, match=r"the recording was not finished; .*--salvage"):
        probe(tmp_path / "take.wav")
    found, warnings = read_all(tmp_path / "take.wav", salvage=True)
    assert np.abs(found - SOUND).max() < 1e-4
    assert "was not finished" in warnings[0]


@pytest.mark.parametrize("data_size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_streamed_wav_is_clamped_to_the_file_with_a_warning(tmp_path, data_size):
    (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND, data_size=data_size, riff_size=0xFFFFFFFF))
    found, warnings = read_all(tmp_path / "take.wav")
    assert np.abs(found - SOUND).max() < 1e-4
    assert "does not state its length" in warnings[0]


@pytest.mark.parametrize("long_size", [0, (1 << 64) - 1])
def test_an_rf64_without_its_size_is_treated_like_a_wav_without(tmp_path, long_size):
    sizes = signals.chunk(b"ds64", struct.pack("<QQQI", 0, long_size, 0, 0))
    bytes_ = signals.wav_bytes(SOUND, magic=b"RF64", data_size=0xFFFFFFFF, before=sizes)
    (tmp_path / "take.wav").write_bytes(bytes_)
    if not long_size:
        with pytest.raises(UnreadableAudio, match="was not finished"):
            probe(tmp_path / "take.wav")
    found, warnings = read_all(tmp_path / "take.wav", salvage=not long_size)
    assert np.abs(found - SOUND).max() < 1e-4
    assert len(warnings) == 1


def test_a_bw64_is_read_like_the_rf64_it_is(tmp_path):
    data = SOUND.shape[1] * 4
    sizes = signals.chunk(b"ds64", struct.pack("<QQQI", data + 100, data, SOUND.shape[1], 0))
    (tmp_path / "song.wav").write_bytes(signals.wav_bytes(SOUND, magic=b"BW64", data_size=0xFFFFFFFF, before=sizes))
    assert np.abs(read_all(tmp_path / "song.wav")[0] - SOUND).max() < 1e-4


def test_a_wav_beyond_4_gb_whose_size_wrapped_around_is_read_whole(tmp_path):
    data = 5_000_000_000
    header = signals.wav_bytes(signals.silence(0), data_size=data % (1 << 32))
    with (tmp_path / "take.wav").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data)
    with open_audio(tmp_path / "take.wav", start_samples=data // 4 - 100) as reader:
        assert reader.read(1000).shape == (2, 100)
        assert "exceeds the 4 GB limit of WAV" in reader.info.warnings[0]


def test_a_wav_that_really_holds_nothing_is_called_empty(tmp_path):
    for after in (b"", signals.chunk(b"LIST", b"INFO")):
        (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND[:, :0], after=after))
        with pytest.raises(UnreadableAudio, match="has no audio"):
            probe(tmp_path / "take.wav")


def test_bytes_behind_the_sound_that_are_no_chunk_are_mentioned(tmp_path):
    stray = b"TAG" + bytes([200]) * 5000
    (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND, after=stray))
    found, warnings = read_all(tmp_path / "take.wav")
    assert found.shape == (2, LENGTH)
    assert f"has {len(stray)} stray bytes after its audio" in warnings[0]


def test_chunks_behind_the_sound_are_not_mentioned(tmp_path):
    (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND, after=signals.chunk(b"LIST", b"INFO" + bytes(5000))))
    assert read_all(tmp_path / "take.wav")[1] == ()


def test_a_header_that_can_be_understood_in_two_ways_is_refused(tmp_path):
    (tmp_path / "take.wav").write_bytes(signals.wav_bytes(SOUND, bits=24, block_align=8))
    with pytest.raises(UnsupportedAudio, match="states 8 bytes per frame for 2 channels of 24 bits"):
        probe(tmp_path / "take.wav")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"RIFF", "not audio|too short"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>" + bytes(100), "a web page: the download failed"),
        (bytes(100_000), "nothing but zeros"),
        (np.random.default_rng(1).bytes(100_000), "is not audio, or has an unknown format"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"ID3\x03\0\0\0\0\1\0" + bytes(128), "tags but no audio"),
        (b"RIFF\x24\0\0\0WAVE" + signals.chunk(b"fmt ", bytes(16)), r"no `data` chunk"),
        (b"RIFF\x24\0\0\0WAVE" + signals.chunk(b"data", bytes(16)), r"no `fmt` chunk"),
        (b"RIFF\x24\0\0\0AVI " + bytes(100), "is a video"),
    ],
)
def test_what_is_not_audio_is_refused_with_its_reason(tmp_path, content, reason):
    (tmp_path / "song.wav").write_bytes(content)
    with pytest.raises(UnreadableAudio if b"AVI" not in content else UnsupportedAudio, match=reason):
        probe(tmp_path / "song.wav")


def test_sound_of_an_unknown_format_is_named(tmp_path):
    (tmp_path / "song.ape").write_bytes(b"MAC " + bytes(1000))
    with pytest.raises(UnsupportedAudio, match=r"is a Monkey's Audio file, which is not supported; convert it"):
        probe(tmp_path / "song.ape")


def test_endless_rows_of_empty_chunks_take_no_endless_time(tmp_path):
    with (tmp_path / "song.wav").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWAVE")
        file.write((b"JUNK" + bytes(4)) * 2_000_000)
    started = time.process_time()
    with pytest.raises(UnreadableAudio):
        inspect(tmp_path / "song.wav")
    assert time.process_time() - started < 5
