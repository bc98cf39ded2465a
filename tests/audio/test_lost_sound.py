"""Sound is never lost without a word: streams that change or are joined, counts that lie, damage, late starts."""

from __future__ import annotations

import io
import struct

import media
import numpy as np
import pytest
import signals
import soundfile
from harness.audio_files import SECOND, SOUND, aac, read_all

from tsbs_daw.audio.headers.mpeg import parse_adts, parse_frame
from tsbs_daw.audio.read import open_audio
from tsbs_daw.audio.tags import read_tags
from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnreadableAudio, UnsupportedAudio

ID3 = b"ID3\x04\0\0\0\0\0\x17TPE1\0\0\0\x04\0\0\x03Ann" + bytes(9)


def mp3(rate: int = 44100, channels: int = 2, seconds: int = 3) -> bytes:
    return signals.encoded(SOUND[:channels, : seconds * rate], rate, "MP3", "MPEG_LAYER_III")


def bare_mp3(**kind) -> bytes:
    """Frames without a header that counts them."""
    return signals.without_xing(mp3(**kind))


CHANGES = [
    ({}, {"rate": 48000}, "changes to 48000 Hz at 3.0 s"),
    ({"rate": 48000}, {"rate": 32000}, "changes to 32000 Hz at 3.0 s"),
    ({}, {"channels": 1}, "changes to 1 channel at 3.0 s"),
    ({"channels": 1}, {}, "changes to 2 channels at 3.0 s"),
    ({}, {"channels": 1, "rate": 48000}, "changes to 48000 Hz and 1 channel at 3.0 s"),
    ({}, {"rate": 22050}, "changes to 22050 Hz at 3.0 s"),
]


@pytest.mark.parametrize(("first", "second", "place"), CHANGES)
@pytest.mark.parametrize(
    "between", [b"", ID3, bytes(100), b"TAG" + bytes(125)], ids=["nothing", "id3", "zeros", "id3v1"]
)
def test_an_mp3_that_changes_midway_is_refused_with_the_place(tmp_path, first, second, place, between):
    path = tmp_path / "song.mp3"
    path.write_bytes(bare_mp3(**first) + between + mp3(**second))
    with pytest.raises(UnsupportedAudio, match=place):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    rate = first.get("rate", 44100)
    assert 3 * rate <= found.shape[1] < 3.2 * rate
    assert place in warnings


def free_mp3(rate: int = 44100, channels: int = 2, *, counted: bool = True) -> bytes:
    """An MP3 whose frames do not state their bit rate, and with it their length."""
    file = io.BytesIO()
    constant = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(file, SOUND[:channels, : 3 * rate].T, rate, **constant)
    data = file.getvalue()
    data = data if counted else data[parse_frame(data[:4]).bytes :]
    out, at = bytearray(data), 0
    while frame := parse_frame(data[at : at + 4]):
        out[at + 2] &= 0x0F
        at += frame.bytes
    return bytes(out)


@pytest.mark.parametrize("before", [b"", ID3, bytes(100)])
@pytest.mark.parametrize("kind", [{}, {"channels": 1}, {"rate": 22050}])
@pytest.mark.parametrize("salvage", [False, True])
def test_an_mp3_with_a_free_bit_rate_is_refused_by_name(tmp_path, before, kind, salvage):
    path = tmp_path / "song.mp3"
    for data in (free_mp3(**kind), free_mp3(**kind, counted=False)):
        path.write_bytes(before + data + b"TAG" + bytes(125))
        with pytest.raises(UnsupportedAudio, match="is an MP3 with a free bit rate, which is not supported"):
            read_all(path, salvage=salvage)


@pytest.mark.parametrize("between", [b"", ID3, bytes(100)])
def test_an_mp3_that_changes_to_a_free_bit_rate_midway_is_refused_with_the_place(tmp_path, between):
    path = tmp_path / "song.mp3"
    path.write_bytes(mp3() + between + free_mp3(counted=False))
    with pytest.raises(UnsupportedAudio, match=r"changes to a free bit rate at 3\.0 s"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert 3 * SECOND <= found.shape[1] < 3.2 * SECOND
    assert "changes to a free bit rate" in warnings


@pytest.mark.parametrize(
    ("second", "place"), [({"rate": 48000}, "48000 Hz at 3.0 s"), ({"channels": 1}, "1 channel at 3.0 s")]
)
def test_an_aac_stream_that_changes_midway_is_refused_with_the_place(tmp_path, second, place):
    path = tmp_path / "song.aac"
    path.write_bytes(aac() + aac(**second))
    with pytest.raises(UnsupportedAudio, match=f"changes to {place}"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert 3 * SECOND <= found.shape[1] < 3.2 * SECOND
    assert place in warnings


def counted(data: bytes, frames: int | None, size: int | None) -> bytes:
    """The MP3 with other numbers in its header: None leaves one out."""
    at = max(data.find(b"Info", 0, 100), data.find(b"Xing", 0, 100))
    first = len(data) - len(signals.without_xing(data))
    flags = (frames is not None) | (size is not None) << 1
    numbers = b"".join(struct.pack(">I", number) for number in (frames, size) if number is not None)
    head = data[: at + 4] + struct.pack(">I", flags) + numbers
    return head.ljust(first, b"\0")[:first] + data[first:]


def frame_count(data: bytes) -> int:
    at = max(data.find(b"Info", 0, 100), data.find(b"Xing", 0, 100))
    return struct.unpack(">I", data[at + 8 : at + 12])[0]


@pytest.mark.parametrize("states_bytes", [False, True])
@pytest.mark.parametrize("states_frames", [False, True])
def test_an_mp3_whose_header_counts_the_beginning_is_read_whole(tmp_path, states_frames, states_bytes):
    data, path = mp3(), tmp_path / "song.mp3"
    header = counted(data, frame_count(data) if states_frames else None, len(data) if states_bytes else None)
    path.write_bytes(header + signals.without_xing(data))
    found, warnings = read_all(path)
    assert 2 * frame_count(data) * 1152 - 2 * 1152 <= found.shape[1] <= 2 * frame_count(data) * 1152
    assert "all of them are read" in warnings or not states_frames


def test_an_mp3_whose_vbri_header_counts_the_beginning_is_read_whole(tmp_path):
    data, path = mp3(), tmp_path / "song.mp3"
    vbri = b"VBRI" + struct.pack(">HHHII", 1, 0, 0, len(data) // 2, frame_count(data) // 2)
    first = len(data) - len(signals.without_xing(data))
    path.write_bytes((data[:4] + bytes(32) + vbri).ljust(first, b"\0") + data[first:])
    found, warnings = read_all(path)
    assert found.shape[1] >= 3 * SECOND
    assert "all of them are read" in warnings


def test_mp3s_end_to_end_are_read_whole(tmp_path):
    (tmp_path / "song.mp3").write_bytes(mp3() + ID3 + mp3() + b"TAG" + bytes(125))
    found, warnings = read_all(tmp_path / "song.mp3")
    assert 6 * SECOND <= found.shape[1] < 6.2 * SECOND
    assert "all of them are read" in warnings


def test_an_mp3_with_fewer_frames_than_it_counts_is_cut_short(tmp_path):
    data, path = mp3(), tmp_path / "song.mp3"
    path.write_bytes(counted(data, 2 * frame_count(data), None))
    with pytest.raises(TruncatedAudio, match=r"promises \d+ frames of audio and the file has"):
        read_all(path)
    assert read_all(path, salvage=True)[0].shape[1] > 2.9 * SECOND


@pytest.mark.parametrize("kind", ["overwritten", "inserted"])
@pytest.mark.parametrize("encode", [mp3, bare_mp3, aac])
def test_sound_after_the_damage_is_salvaged_and_the_loss_is_stated(tmp_path, encode, kind):
    data, path = encode(), tmp_path / "song"
    middle, garbage = len(data) // 2, np.random.default_rng(3).bytes(5000)
    path.write_bytes(data[:middle] + garbage + data[middle + (5000 if kind == "overwritten" else 0) :])
    with pytest.raises(UnreadableAudio, match=r"is damaged at 1\.\d s: \d+ bytes .* is lost.*--salvage"):
        read_all(path)
    whole = 3 * SECOND
    found, warnings = read_all(path, salvage=True)
    lost = 5000 / len(data) * whole if kind == "overwritten" else 0
    assert whole - lost - 4 * 1152 < found.shape[1] < whole - lost + 3 * 1152
    assert "is lost" in warnings


def frame_starts(data: bytes, encode) -> list[int]:
    parse, position, starts = parse_adts if encode is aac else parse_frame, 0, []
    while frame := parse(data[position : position + 7 if encode is aac else position + 4]):
        starts.append(position)
        position += frame.bytes
    return starts


@pytest.mark.parametrize("encode", [mp3, bare_mp3, aac])
def test_zeros_in_the_place_of_frames_are_damage(tmp_path, encode):
    data, path = encode(), tmp_path / "song"
    starts = frame_starts(data, encode)
    begin, end = starts[len(starts) // 3], starts[len(starts) // 3 + 25]
    assert end - begin > 4096
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    with pytest.raises(AudioError, match=r"is damaged at 1\.0 s: .* is lost"):
        read_all(path)
    found, warnings = read_all(path, salvage=True)
    assert "is lost" in warnings
    assert found.shape[1] == pytest.approx(3 * SECOND - 25 * 1152, abs=5 * 1152)


@pytest.mark.parametrize("encode", [bare_mp3, aac])
def test_zeros_in_the_place_of_the_end_are_an_unfinished_copy(tmp_path, encode):
    data, path = encode(), tmp_path / "song"
    starts = frame_starts(data, encode)
    kept = data[: starts[2 * len(starts) // 3]]
    whole = len(read_all(_written(path, kept))[0][0])
    with pytest.raises(TruncatedAudio, match=r"is cut short at 2\.\d s: the rest of its audio is zeros"):
        read_all(_written(path, kept + bytes(1 << 16)))
    found, warnings = read_all(path, salvage=True)
    assert found.shape[1] == whole and "the rest of its audio is zeros" in warnings
    found, warnings = read_all(_written(path, kept + bytes(5000)))
    assert found.shape[1] == whole and "ends in 5000 zeros" in warnings
    assert "ends in" not in read_all(_written(path, kept + bytes(4096)))[1]


def test_zeros_after_all_frames_that_a_header_counts_are_padding(tmp_path):
    data = mp3()
    padded = _written(tmp_path / "song.mp3", data + bytes(1 << 17))
    assert read_all(padded)[1] == ""
    assert np.array_equal(read_all(padded)[0], read_all(_written(tmp_path / "song.mp3", data))[0])


@pytest.mark.parametrize("between", [ID3, b""], ids=["id3", "header"])
def test_zeros_between_two_mp3s_are_padding(tmp_path, between):
    path = _written(tmp_path / "song.mp3", mp3() + bytes(6000) + between + mp3())
    found, warnings = read_all(path)
    assert found.shape[1] == pytest.approx(6 * SECOND, abs=4 * 1152)
    assert "is lost" not in warnings


def test_flac_in_ogg_is_read_like_the_flac(tmp_path):
    pytest.importorskip("av")
    path = media.write_media(tmp_path / "song.oga", [SOUND[:, :SECOND]], 44100, codec="flac", sample_format="s16")
    found, warnings = read_all(path)
    assert warnings == "" and np.abs(found - SOUND[:, :SECOND]).max() < 2 / 32768
    cut = _written(tmp_path / "cut.oga", path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TruncatedAudio, match="has no last page"):
        read_all(cut)


def _written(path, data: bytes):
    path.write_bytes(data)
    return path


BEFORE = {
    "id3": ID3,
    "several id3": ID3 + ID3 + ID3,
    "zeros": bytes(5000),
    "garbage": np.random.default_rng(5).bytes(3001),
    "greeting": b"ICY 200 OK\r\nicy-name:x\r\n\r\n",
    "id3 and garbage": ID3 + b"\xde\xad",
}
LATE = {
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".wav": ("WAV", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".aiff": ("AIFF", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("ending", LATE)
def test_sound_that_starts_late_is_found_and_what_is_skipped_is_stated(tmp_path, ending, before):
    data = signals.encoded(SOUND, 44100, *LATE[ending])
    whole, late = tmp_path / f"whole{ending}", tmp_path / f"late{ending}"
    whole.write_bytes(data)
    late.write_bytes(BEFORE[before] + data)
    found, warnings = read_all(late)
    assert np.array_equal(found, read_all(whole)[0])
    usual = ending in (".mp3", ".flac") and before in ("id3", "several id3")
    assert (f"has {len(BEFORE[before])} bytes before its audio; they are skipped" in warnings) is (not usual)


@pytest.mark.parametrize("container", ["adts", "mp4", "matroska"])
def test_aac_that_starts_late_is_found(tmp_path, container):
    data = aac(container=container)
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "late").write_bytes(ID3 + b"\xde\xad\xbe" + data)
    found, warnings = read_all(tmp_path / "late")
    assert np.array_equal(found, read_all(tmp_path / "whole")[0])
    assert "bytes before its audio" in warnings


def test_an_mp3_cut_from_a_stream_is_read_from_its_first_whole_frame(tmp_path):
    (tmp_path / "song.mp3").write_bytes(bare_mp3()[300:])
    found, warnings = read_all(tmp_path / "song.mp3")
    assert found.shape[1] > 2.9 * SECOND
    assert "bytes before its audio" in warnings


def test_tags_before_a_wav_are_read(tmp_path):
    (tmp_path / "song.wav").write_bytes(ID3 + signals.wav_bytes(SOUND))
    assert read_tags(tmp_path / "song.wav").artist == "Ann"


def iff(name: bytes, body: bytes, order: str, padded: bool) -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + (b"\0" if padded and len(body) % 2 else b"")


@pytest.mark.parametrize("odd", ["data", "before", "both"])
@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX"])
def test_a_wav_without_pad_bytes_is_read_as_one_with_them(tmp_path, magic, odd):
    order = ">" if magic == b"RIFX" else "<"
    sound = np.rint(SOUND[0, :1001] * 127 + 128).astype(np.uint8).tobytes()
    fmt = struct.pack(f"{order}HHIIHH", 1, 1, 44100, 44100, 1, 8)
    reference = bytes(338) + struct.pack(f"{order}Q", 44100 * 3600) + bytes(256)
    for name, padded in (("control", True), ("song", False)):
        body = (
            b"WAVE" + (iff(b"JUNK", b"abc", order, padded) if odd != "data" else b"") + iff(b"fmt ", fmt, order, True)
        )
        body += iff(b"data", sound if odd != "before" else sound[:-1], order, padded)
        body += iff(b"bext", reference, order, padded) + iff(b"id3 ", ID3, order, True)
        (tmp_path / name).write_bytes(magic + struct.pack(f"{order}I", len(body)) + body)
    wanted, found = (read_all(tmp_path / name) for name in ("control", "song"))
    assert np.array_equal(found[0], wanted[0])
    assert wanted[1] == ""
    assert "without its pad byte" in found[1]
    with open_audio(tmp_path / "song") as reader:
        assert reader.info.time_reference_samples == 44100 * 3600
    assert read_tags(tmp_path / "song").artist == "Ann"


@pytest.mark.parametrize("sound_first", [True, False])
def test_an_aiff_without_pad_bytes_is_read_as_one_with_them(tmp_path, sound_first):
    sound = np.rint(SOUND[0, :1001] * 127).astype(np.int8).tobytes()
    rate = bytes.fromhex("400eac44000000000000")  # 44100 as an 80-bit float
    common = iff(b"COMM", struct.pack(">hIh", 1, 1001, 8) + rate, ">", True)
    for name, padded in (("control.aiff", True), ("song.aiff", False)):
        data = iff(b"SSND", bytes(8) + sound, ">", padded)
        body = b"AIFF" + iff(b"NAME", b"odd", ">", padded)
        body += (data + common if sound_first else common + data) + iff(b"ID3 ", ID3, ">", True)
        (tmp_path / name).write_bytes(b"FORM" + struct.pack(">I", len(body)) + body)
    wanted, found = (read_all(tmp_path / name) for name in ("control.aiff", "song.aiff"))
    assert np.array_equal(found[0], wanted[0])
    assert found[0].shape == (1, 1001)
    assert "without its pad byte" in found[1]
    assert read_tags(tmp_path / "control.aiff").artist == read_tags(tmp_path / "song.aiff").artist == "Ann"


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
@pytest.mark.parametrize("samples", [SECOND, SECOND + 1, SECOND - 77])
def test_a_compressed_wav_is_as_long_as_it_says(tmp_path, subtype, samples):
    channels = 1 if subtype == "GSM610" else 2
    data = bytearray(signals.encoded(SOUND[:channels, :samples], 44100, "WAV", subtype))
    at = data.index(b"fact") + 8
    data[at : at + 4] = struct.pack("<I", samples)
    path = tmp_path / "song.wav"
    path.write_bytes(data)
    assert read_all(path)[0].shape == (channels, samples)
    with open_audio(path) as reader:
        assert reader.info.samples == reader.samples == samples
    data[at : at + 4] = struct.pack("<I", samples // 2)
    path.write_bytes(data)
    assert read_all(path)[0].shape[1] >= samples, "a count of the beginning does not count"


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW"])
def test_companded_sound_is_as_long_as_its_bytes(tmp_path, subtype):
    data = bytearray(signals.encoded(SOUND[:1, :1001], 8000, "WAV", subtype))
    if (at := data.find(b"fact")) >= 0:
        data[at + 8 : at + 12] = struct.pack("<I", 10)
    (tmp_path / "song.wav").write_bytes(data)
    assert read_all(tmp_path / "song.wav")[0].shape == (1, 1001)


def wrapped(data: bytes, *, kind: bytes = b"WAVE", fact: int | None = None) -> bytes:
    """An MP3 in a RIFF file."""
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 2, 44100, 16000, 1, 0, 12, 1, 2, 417, 1, 1393)
    chunks = signals.chunk(b"fmt ", fmt) if kind == b"WAVE" else b""
    chunks += signals.chunk(b"fact", struct.pack("<I", fact)) if fact else b""
    body = kind + chunks + signals.chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("fact", [None, 3 * SECOND, 10])
@pytest.mark.parametrize("kind", [b"WAVE", b"RMP3"])
def test_mp3_in_a_wav_is_read_like_the_mp3(tmp_path, kind, fact):
    (tmp_path / "bare.mp3").write_bytes(bare_mp3())
    (tmp_path / "song.wav").write_bytes(wrapped(bare_mp3(), kind=kind, fact=fact))
    found, warnings = read_all(tmp_path / "song.wav")
    assert np.array_equal(found, read_all(tmp_path / "bare.mp3")[0])
    assert warnings == ""


def test_mp3_in_a_wav_that_is_cut_is_refused(tmp_path):
    (tmp_path / "song.wav").write_bytes(wrapped(bare_mp3())[:-20_000])
    with pytest.raises(TruncatedAudio):
        read_all(tmp_path / "song.wav")
    assert read_all(tmp_path / "song.wav", salvage=True)[0].shape[1] > SECOND


def test_mp3_in_a_wav_that_changes_is_refused(tmp_path):
    (tmp_path / "song.wav").write_bytes(wrapped(bare_mp3() + bare_mp3(channels=1)))
    with pytest.raises(AudioError, match=r"changes to 1 channel at 3\.0 s"):
        read_all(tmp_path / "song.wav")
