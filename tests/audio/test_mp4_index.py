"""MP4: what the index says is compared with itself and with the file, so that no sound is lost without a word."""

from __future__ import annotations

import importlib.util
import re

import media
import numpy as np
import pytest
import signals

from tsbs_daw.audio.probe import inspect, seems_unfinished
from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError, TruncatedAudio, UnreadableAudio

pytestmark = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs the extra [media]")

RATE, SAMPLES = 44100, 44100 * 4 + 3
CODECS = {"aac": ("fltp", 44100), "alac": ("s16p", 44100), "libopus": ("flt", 48000), "flac": ("s16", 44100)}


def song(folder, codec: str = "aac") -> bytes:
    """A file whose index comes first, as a server wants it."""
    sample_format, rate = CODECS[codec]
    options = {"codec": codec, "sample_format": sample_format, "options": {"movflags": "faststart"}}
    return media.write_media(folder / "made.mp4", [signals.noise(SAMPLES)], rate, **options).read_bytes()


def heard(folder, data: bytes, *, salvage: bool = False) -> tuple[np.ndarray, str]:
    path = folder / "song.m4a"
    path.write_bytes(data)
    with open_audio(path, salvage=salvage) as reader:
        sound = np.concatenate(list(reader.blocks()), axis=1)
        return sound, " ".join(reader.info.warnings)


def refusal(folder, data: bytes) -> AudioError:
    with pytest.raises(AudioError) as refused:
        heard(folder, data)
    return refused.value


def audio_at(data: bytes) -> int:
    return data.index(b"mdat") + 4


def without_length(data: bytes) -> bytes:
    """The audio's box reaches to the end of the file, wherever that is."""
    at = data.index(b"mdat") - 4
    return data[:at] + bytes(4) + data[at + 4 :]


def with_true_length(data: bytes) -> bytes:
    at = data.index(b"mdat") - 4
    return data[:at] + (len(data) - at).to_bytes(4, "big") + data[at + 4 :]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mended", [bytes, without_length, with_true_length])
def test_a_cut_file_is_refused_with_the_place_whatever_its_boxes_say(tmp_path, codec, mended):
    data = song(tmp_path, codec)
    cut = mended(data[: audio_at(data) + (len(data) - audio_at(data)) // 2])
    error = refusal(tmp_path, cut)
    assert isinstance(error, TruncatedAudio)
    at_s, lost_s = map(float, re.search(r"cut short at (\S+) s: (\S+) s of its audio is missing", str(error)).groups())
    rate = CODECS[codec][1]
    assert 1.0 < at_s < 3.0
    assert at_s + lost_s == pytest.approx(SAMPLES / rate, abs=0.2)
    assert seems_unfinished(tmp_path / "song.m4a")
    whole, _ = heard(tmp_path, data)
    sound, warnings = heard(tmp_path, cut, salvage=True)
    assert f"is cut short at {at_s}" in warnings
    assert sound.shape[1] == pytest.approx(at_s * rate, abs=8200)
    assert np.array_equal(sound, whole[:, : sound.shape[1]])


def test_frames_outside_the_file_are_told_and_salvage_goes_on_behind_them(tmp_path):
    data = media.rechunked(song(tmp_path, "alac"), 5)
    whole, warnings = heard(tmp_path, data)
    expected = np.concatenate((whole[:, : 15 * 4096], whole[:, 20 * 4096 :]), axis=1)
    assert (whole.shape[1], warnings) == (SAMPLES, "")
    chunks = media.table(data, b"stco")
    for place in (len(data) * 2, (1 << 32) - 8, 40):  # behind the end, and inside the index
        moved = media.with_table(data, b"stco", media.packed(len(chunks), *chunks[:3], place, *chunks[4:]))
        error = refusal(tmp_path, moved)
        assert "is cut short at 1.4 s: 0.45 s of its audio is missing from the file" in str(error)
        sound, warnings = heard(tmp_path, moved, salvage=True)
        assert "is cut short at 1.4 s" in warnings
        assert np.array_equal(sound[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_in_the_place_of_the_rest_are_an_unfinished_copy(tmp_path, codec):
    data = song(tmp_path, codec)
    half = audio_at(data) + (len(data) - audio_at(data)) // 2
    unfinished = data[:half] + bytes(len(data) - half)
    assert re.search(r"is cut short at [12]\.\d s: the rest of its audio is zeros", str(refusal(tmp_path, unfinished)))
    assert seems_unfinished(tmp_path / "song.m4a")
    sound, _ = heard(tmp_path, unfinished, salvage=True)
    assert SAMPLES // 4 < sound.shape[1] < SAMPLES * 3 // 4


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_in_the_middle_are_never_taken_for_sound(tmp_path, codec):
    data = song(tmp_path, codec)
    half = audio_at(data) + (len(data) - audio_at(data)) // 2
    hole = (len(data) - half) // 4
    holed = data[:half] + bytes(hole) + data[half + hole :]
    assert "damaged after sample" in str(refusal(tmp_path, holed))
    sound, warnings = heard(tmp_path, holed, salvage=True)
    assert "could not be decoded" in warnings
    assert SAMPLES // 2 < sound.shape[1] < SAMPLES


@pytest.mark.parametrize(
    ("name", "counts"), [(b"stts", (1, 50, 1024)), (b"stts", (2, 60, 1024, 60, 1024)), (b"stsz", None)]
)
def test_tables_that_count_different_numbers_of_frames_are_refused(tmp_path, name, counts):
    data = song(tmp_path)
    if counts is None:
        sizes = media.table(data, b"stsz")[:50]
        counts = (0, len(sizes), *sizes)
    lying = media.with_table(data, name, media.packed(*counts))
    error = refusal(tmp_path, lying)
    assert isinstance(error, UnreadableAudio)
    assert re.search(
        r"index that contradicts itself \(\d+ frames have a size, \d+ a duration and \d+ a place\)", str(error)
    )
    sound, warnings = heard(tmp_path, lying, salvage=True)
    assert "contradicts itself" in warnings
    if name == b"stts":
        assert sound.shape[1] >= SAMPLES


@pytest.mark.parametrize("empty", [(b"stsc",), (b"stsc", b"stts"), (b"stsc", b"stts", b"stsz"), (b"stsc", b"stsz")])
@pytest.mark.parametrize("salvage", [False, True])
def test_an_index_with_empty_tables_gives_sound_or_a_reason(tmp_path, empty, salvage):
    data = song(tmp_path)
    for name in empty:
        data = media.with_table(data, name, media.packed(0, 0) if name == b"stsz" else media.packed(0))
    with pytest.raises(AudioError):
        heard(tmp_path, data, salvage=salvage)


def test_chunks_that_are_not_listed_are_noticed(tmp_path):
    data = media.rechunked(song(tmp_path), 20)
    chunks = media.table(data, b"stco")
    fewer = media.with_table(data, b"stco", media.packed(len(chunks) - 3, *chunks[:-3]))
    assert "contradicts itself" in str(refusal(tmp_path, fewer))


def test_an_edit_list_is_followed_and_what_it_leaves_out_is_told(tmp_path):
    data = song(tmp_path, "alac")
    whole, _ = heard(tmp_path, data)
    sound, warnings = heard(tmp_path, media.with_table(data, b"elst", media.packed(1, 2000, RATE, 1 << 16)))
    assert "has an edit list that skips 2.0 of its 4.0 s; that part is left out, as in any player" in warnings
    assert np.array_equal(sound, whole[:, RATE : 3 * RATE])
    two = media.packed(2, 1000, RATE, 1 << 16, 1000, 3 * RATE, 1 << 16)
    sound, warnings = heard(tmp_path, media.with_table(data, b"elst", two))
    assert "skips 2.0 of its 4.0 s" in warnings
    assert sound.shape[1] == pytest.approx(2 * RATE, abs=2 * 4096)
    late = media.packed(2, 500, -1, 1 << 16, 4000, 0, 1 << 16)
    sound, warnings = heard(tmp_path, media.with_table(data, b"elst", late))
    assert "starts its audio 0.500 s late; the gap is left out" in warnings
    assert np.array_equal(sound[:, :SAMPLES], whole[:, : sound.shape[1]])


def with_itunes_tag(path, delay: int, padding: int, count: int) -> bytes:
    from mutagen.mp4 import MP4, MP4FreeForm

    file = MP4(path)
    numbers = f" 00000000 {delay:08X} {padding:08X} {count:016X}" + " 00000000" * 8
    file["----:com.apple.iTunes:iTunSMPB"] = [MP4FreeForm(numbers.encode())]
    file.save()
    return path.read_bytes()


@pytest.mark.parametrize("edits", [True, False])
@pytest.mark.parametrize(("count", "believed"), [(SAMPLES, True), (SAMPLES // 3, False), (SAMPLES * 3, False)])
def test_a_gapless_tag_is_believed_only_where_it_fits_the_frames(tmp_path, count, believed, edits):
    """It is copied along where a song is cut or joined, and would hide the rest of the sound."""
    data = song(tmp_path)
    path = tmp_path / "tagged.m4a"
    path.write_bytes(data if edits else media.without_box(data, b"edts"))
    whole, _ = heard(tmp_path, data)
    sound, warnings = heard(tmp_path, with_itunes_tag(path, 1024, -(SAMPLES + 1024) % 1024, count))
    assert ("iTunSMPB" in warnings) is not believed
    if edits or believed:
        assert np.array_equal(sound, whole)
    else:
        assert sound.shape[1] >= SAMPLES


def fragmented(folder, codec: str, flags: str) -> bytes:
    sample_format, rate = CODECS[codec]
    options = {"movflags": flags, "frag_duration": "400000"}
    kind = {"codec": codec, "sample_format": sample_format, "options": options}
    return media.write_media(folder / "made.mp4", [signals.noise(SAMPLES)], rate, **kind).read_bytes()


@pytest.mark.parametrize("codec", ["aac", "libopus", "flac"])
@pytest.mark.parametrize("flags", ["dash+delay_moov", "frag_keyframe+default_base_moof+delay_moov"])
@pytest.mark.parametrize("gone", [1, 3])
def test_a_fragment_that_is_missing_is_told_with_its_place(tmp_path, codec, flags, gone):
    data = fragmented(tmp_path, codec, flags)
    whole, warnings = heard(tmp_path, data)
    assert warnings == ""
    places = [match.start() - 4 for match in re.finditer(b"moof", data)]
    holed = data[: places[3]] + data[places[3 + gone] :]
    told = re.search(r"is damaged at (\S+) s: (\S+) s of its audio is missing between", str(refusal(tmp_path, holed)))
    assert float(told[1]) == pytest.approx(1.2, abs=0.3)
    assert float(told[2]) == pytest.approx(0.4 * gone, abs=0.15 * gone)
    sound, warnings = heard(tmp_path, holed, salvage=True)
    assert "missing between its fragments" in warnings
    assert sound.shape[1] == pytest.approx(whole.shape[1] - float(told[2]) * CODECS[codec][1], abs=5000)


PLAIN, INDEXED, EACH = "frag_keyframe+default_base_moof+delay_moov", "dash+global_sidx+delay_moov", "dash"


def tops(data: bytes) -> list[tuple[str, int]]:
    """Name and place of each box of the top level."""
    found, at = [], 0
    while at < len(data):
        found.append((data[at + 4 : at + 8].decode(), at))
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def cut_at(error: AudioError) -> tuple[float, float]:
    """Where a file is cut, and how much is lost, in seconds."""
    told = re.search(r"cut short at (\S+) s: the fragments of the (\S+) s", str(error))
    return float(told[1]), float(told[2])


@pytest.mark.parametrize("codec", ["aac", "libopus", "flac"])
@pytest.mark.parametrize("kept", [1, 5, 8])
def test_a_file_without_its_last_fragments_is_cut_where_its_index_lists_them(tmp_path, codec, kept):
    data = fragmented(tmp_path, codec, INDEXED)
    whole, warnings = heard(tmp_path, data)
    assert "how many fragments" not in warnings
    places = [at for name, at in tops(data) if name == "moof"]
    told = cut_at(refusal(tmp_path, data[: places[kept]]))
    assert 0.4 * kept - 0.1 < told[0] < 0.45 * kept
    assert sum(told) == pytest.approx(whole.shape[1] / CODECS[codec][1], abs=0.1)
    sound, warnings = heard(tmp_path, data[: places[kept]], salvage=True)
    assert "is cut short" in warnings
    assert sound.shape[1] / CODECS[codec][1] == pytest.approx(told[0], abs=0.1)


def test_a_segment_that_is_announced_and_does_not_come_is_missing(tmp_path):
    data = fragmented(tmp_path, "aac", EACH + "+delay_moov")
    places = [at for name, at in tops(data) if name == "moof"]
    assert "the fragments of the 0.4" in str(refusal(tmp_path, data[: places[4]]))


def test_a_duration_of_all_fragments_is_compared_with_what_they_hold(tmp_path):
    data = fragmented(tmp_path, "aac", PLAIN)
    seconds = data[data.index(b"mvhd") + 16 :][:4]
    stated = (16).to_bytes(4, "big") + b"mehd" + bytes(4) + (4 * int.from_bytes(seconds, "big")).to_bytes(4, "big")
    moov = data.index(b"moov") - 4
    mvex = data.index(b"mvex") - 4
    for box in (mvex, moov):
        length = int.from_bytes(data[box : box + 4], "big") + len(stated)
        data = data[:box] + length.to_bytes(4, "big") + data[box + 4 :]
    data = data[: mvex + 8] + stated + data[mvex + 8 :]
    assert heard(tmp_path, data)[1] == ""
    places = [at for name, at in tops(data) if name == "moof"]
    told = cut_at(refusal(tmp_path, data[: places[7]]))
    assert sum(told) == pytest.approx(4, abs=0.06)


@pytest.mark.parametrize("flags", [PLAIN, EACH + "+delay_moov"])
def test_what_states_no_end_is_used_and_the_doubt_is_told(tmp_path, flags):
    data = fragmented(tmp_path, "aac", flags)
    assert heard(tmp_path, data)[1] == ""
    first = "sidx" if flags.startswith(EACH) else "moof"
    places = [at for name, at in tops(data) if name == first]
    assert "does not state how many fragments it has" in heard(tmp_path, data[: places[5]])[1]
    brand = (20).to_bytes(4, "big") + b"styp" + b"msdh" + bytes(4) + b"lmsg"
    assert heard(tmp_path, data[: places[4]] + brand + data[places[4] : places[5]])[1] == ""


@pytest.mark.parametrize("length", [4097, 30_000])
def test_what_is_no_box_among_the_fragments_is_damage(tmp_path, length):
    data = fragmented(tmp_path, "aac", PLAIN)
    place = [at for name, at in tops(data) if name == "moof"][3]
    assert "is damaged at 1.3 s" in str(refusal(tmp_path, data[:place] + bytes(length) + data[place:]))
    assert heard(tmp_path, data + b"TAG" + bytes(125))[1] == ""


def test_a_piece_of_a_broadcast_may_begin_at_any_time(tmp_path):
    data = fragmented(tmp_path, "flac", "dash+delay_moov")
    places = [match.start() - 4 for match in re.finditer(b"moof", data)]
    (tmp_path / "song.m4a").write_bytes(data[: places[0]] + data[places[2] :])
    assert inspect(tmp_path / "song.m4a").fault is None


def test_an_index_of_a_day_is_compared_in_a_bounded_number_of_reads(tmp_path):
    data = media.rechunked(song(tmp_path), 1)
    path = tmp_path / "song.m4a"
    path.write_bytes(data)
    assert inspect(path).fault is None
    assert not seems_unfinished(path)
