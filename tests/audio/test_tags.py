"""Tags and covers, through real files; what is written is read by mutagen, libsndfile and this package."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import mutagen
import numpy as np
import pytest
import signals
import soundfile
from mutagen.flac import Picture
from wav_loops import acid_of

from tsbs_daw.audio.encoders import DELIVERY_FORMATS, file_ending, open_writer
from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import probe
from tsbs_daw.audio.riff import chunk_names
from tsbs_daw.audio.tags import Tags, read_tags, repaired, short_key, write_tags
from tsbs_daw.audio.writer import AudioWriter
from tsbs_daw.core.errors import OutputError

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20
PNG = b"\x89PNG\r\n\x1a\n" + bytes(999)
FULL = Tags("Björk", "Jóga 東京", "Homogenic", "1997", "Electronic", "3/10", "naïve — “quoted”", JPEG, "image/jpeg")


def delivered(folder: Path, form: str, samples: int = 10_001, **options) -> Path:
    path = folder / f"song{file_ending(form)}"
    with open_writer(path, form, 44100, 1, **options) as writer:
        writer.write(signals.noise(samples, channels=1))
    return path


def sound_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_what_is_written_is_read_and_the_sound_is_the_same(tmp_path, form):
    path = delivered(tmp_path, form, time_reference_samples=77, description="a stem")
    assert read_tags(path) == Tags(comment="a stem" if form.startswith("flac") else "")
    sound, before = sound_of(path), path.read_bytes()
    write_tags(path, FULL, bpm=127.954, key="A minor")
    assert read_tags(path) == FULL
    assert np.array_equal(sound_of(path), sound)
    assert soundfile.info(str(path)).frames == 10_001
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if form.startswith("wav"):
        after = path.read_bytes()
        assert after[8 : len(before)] == before[8:], "nothing but the RIFF's size has changed: not bext, not the sound"
    if form.startswith(("wav", "flac")):
        assert inspect(path).time_reference_samples == 77


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_tempo_and_key_stand_where_dj_programs_look(tmp_path, form):
    path = delivered(tmp_path, form)
    write_tags(path, Tags(), bpm=127.954, key="Bb minor")
    tags = mutagen.File(path).tags
    names = ("bpm", "initialkey") if form.startswith("flac") else ("TBPM", "TKEY")
    assert [str(tags[name][0]) for name in names] == ["127.95", "Bbm"]
    if form.startswith("wav"):
        assert acid_of(path) is None, "tags say what is, and let nothing be stretched"


@pytest.mark.parametrize("form", DELIVERY_FORMATS)
def test_tags_written_again_replace_the_old_ones_and_leave_others(tmp_path, form):
    path = delivered(tmp_path, form)
    write_tags(path, FULL)
    write_tags(path, Tags(artist="Another", title="T" * 5000, cover=PNG, cover_mime="image/png"), bpm=90)
    found = read_tags(path)
    assert (found.artist, found.title, found.cover) == ("Another", "T" * 5000, PNG)
    if form.startswith("wav"):
        names = chunk_names(path)
        assert [names.count(name) for name in (b"id3 ", b"INFO", b"data", b"bext")] == [1] * 4
    else:
        assert found.album == "Homogenic"


@pytest.mark.parametrize("rate", [8000, 22050])
def test_an_mp3_of_a_low_rate_is_tagged_too(tmp_path, rate):
    with open_writer(tmp_path / "song.mp3", "mp3", rate, 1) as writer:
        writer.write(signals.noise(5000, channels=1))
    write_tags(tmp_path / "song.mp3", FULL)
    assert read_tags(tmp_path / "song.mp3") == FULL
    assert probe(tmp_path / "song.mp3").samples == 5000


def test_a_cover_that_a_format_cannot_hold_is_refused_and_the_file_is_as_it_was(tmp_path):
    path = delivered(tmp_path, "flac16")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="Cannot write tags to"):
        write_tags(path, Tags(cover=JPEG + bytes(1 << 24), cover_mime="image/jpeg"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_windows_and_editors_find_the_tags_of_a_wav_in_its_info(tmp_path):
    path = delivered(tmp_path, "wav24")
    write_tags(path, FULL)
    with soundfile.SoundFile(str(path)) as file:
        assert (file.artist, file.title, file.album, file.genre) == (FULL.artist, FULL.title, FULL.album, FULL.genre)


def test_an_rf64_keeps_its_long_sizes(tmp_path):
    with AudioWriter(tmp_path / "long.wav", 44100, 1, riff_limit_bytes=1000) as writer:
        writer.write(signals.noise(5001, channels=1))
    sound = sound_of(tmp_path / "long.wav")
    write_tags(tmp_path / "long.wav", FULL, bpm=120)
    data = (tmp_path / "long.wav").read_bytes()
    assert data[:8] == b"RF64\xff\xff\xff\xff"
    assert struct.unpack("<Q", data[20:28])[0] == len(data) - 8
    assert np.array_equal(sound_of(tmp_path / "long.wav"), sound)
    assert read_tags(tmp_path / "long.wav") == FULL


def test_chunks_of_other_programs_stay(tmp_path):
    note = signals.chunk(b"LIST", b"INFO" + signals.chunk(b"INAM", b"old\0"))
    data = signals.wav_bytes(
        signals.noise(100), before=note, after=signals.chunk(b"cue ", bytes(4)) + signals.chunk(b"iXML", b"<x/>")
    )
    path = tmp_path / "song.wav"
    path.write_bytes(data)
    write_tags(path, Tags(title="new"))
    assert chunk_names(path) == [b"JUNK", b"fmt ", b"data", b"cue ", b"iXML", b"id3 ", b"INFO"]
    assert read_tags(path).title == "new"


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tsbs_daw.audio.tags import Tags, write_tags
from tsbs_daw.core.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, size + 500))
try:
    write_tags(Path(sys.argv[1]), Tags(title="t", cover=bytes(100_000), cover_mime="image/png"))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("form", ["wav24", "flac24", "aiff16", "mp3"])
def test_where_there_is_no_room_the_file_is_as_it_was(tmp_path, form):
    path = delivered(tmp_path, form)
    write_tags(path, Tags(title="before"))
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert "too large for the file system" in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("data", [b"", b"not audio at all" * 10])
def test_tags_are_not_written_to_what_is_no_sound(tmp_path, data):
    (tmp_path / "song.wav").write_bytes(data)
    with pytest.raises(OutputError, match="Cannot write tags"):
        write_tags(tmp_path / "song.wav", FULL)
    assert (tmp_path / "song.wav").read_bytes() == data


# Reading what other programs have written.


def with_info(path: Path, title: bytes) -> Path:
    body = b"INFO" + signals.chunk(b"IART", b"A\0") + signals.chunk(b"INAM", title + b"\0")
    path.write_bytes(signals.wav_bytes(signals.noise(100), after=signals.chunk(b"LIST", body)))
    return path


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (b"plain", "plain"),
        ("Jóga".encode("latin-1"), "Jóga"),
        ("Don’t “stop” €".encode("cp1252"), "Don’t “stop” €"),
        ("Motörhead 東京".encode(), "Motörhead 東京"),
        (b"two\r\nlines\x07", "two lines"),
    ],
)
def test_an_info_chunk_in_any_usual_encoding_is_read(tmp_path, raw, meant):
    assert read_tags(with_info(tmp_path / "song.wav", raw)).title == meant


def id3_tag(frames: dict[str, bytes], version: int = 3) -> bytes:
    """A tag as other programs write it: each frame's body byte by byte, its encoding first."""
    body = b"".join(name.encode() + struct.pack(">I", len(data)) + b"\0\0" + data for name, data in frames.items())
    size = len(body)
    return b"ID3" + bytes([version, 0, 0, *(size >> shift & 127 for shift in (21, 14, 7, 0))]) + body


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        (b"\0" + "Beyoncé".encode("latin-1"), "Beyoncé"),
        (b"\0" + "Beyoncé — Déjà Vu".encode(), "Beyoncé — Déjà Vu"),
        (b"\0" + "Don’t".encode("cp1252"), "Don’t"),
        (b"\1" + "東京".encode("utf-16"), "東京"),
        (b"\1\xfe\xff" + "東京".encode("utf-16-be"), "東京"),
        (b"\1\xff\xfe" + "été".encode("utf-16-le") + b"\0\0", "été"),
    ],
)
def test_an_mp3_that_lies_about_its_encoding_is_read(tmp_path, body, meant):
    path = delivered(tmp_path, "mp3")
    path.write_bytes(id3_tag({"TIT2": body, "TPE1": b"\0Someone"}) + path.read_bytes())
    assert (read_tags(path).title, read_tags(path).artist) == (meant, "Someone")
    assert probe(path).samples == 10_001


def test_an_old_tag_at_the_end_of_an_mp3_is_read(tmp_path):
    path = delivered(tmp_path, "mp3")
    old = b"TAG" + b"Title".ljust(30, b"\0") + "Café".encode("latin-1").ljust(30, b"\0") + bytes(30)
    path.write_bytes(path.read_bytes() + (old + b"1991" + bytes(30) + b"\x11").ljust(128, b"\0"))
    found = read_tags(path)
    assert (found.title, found.artist, found.date, found.genre) == ("Title", "Café", "1991", "Rock")


def test_an_ogg_with_a_cover_is_read(tmp_path):
    import base64

    path = signals.write_file(tmp_path / "song.ogg", signals.noise(5000), container="OGG", subtype="VORBIS")
    file = mutagen.File(path)
    picture = Picture()
    picture.type, picture.mime, picture.data = 3, "image/png", PNG
    file["artist"], file["description"] = ["One", "Two"], "a comment"
    file["metadata_block_picture"] = [base64.b64encode(b"damaged").decode(), base64.b64encode(picture.write()).decode()]
    file.save()
    assert read_tags(path) == Tags("One, Two", comment="a comment", cover=PNG, cover_mime="image/png")


def test_a_cover_that_is_no_picture_is_left_out(tmp_path):
    path = delivered(tmp_path, "flac16")
    file, picture = mutagen.File(path), Picture()
    picture.data = b"<html>"
    file.add_picture(picture)
    file.save()
    assert read_tags(path) == Tags()


@pytest.mark.parametrize("data", [b"", b"RIFF", b"ID3\3\0\0\x7f\x7f\x7f\x7f", bytes(1000), b"RIFF\xff\xff\xff\xffWAVE"])
def test_reading_tags_never_raises(tmp_path, data):
    (tmp_path / "song.mp3").write_bytes(data)
    assert read_tags(tmp_path / "song.mp3") == Tags()
    assert read_tags(tmp_path / "missing") == Tags()
    assert read_tags(tmp_path) == Tags()


def test_mutated_tags_are_read_or_left_out(tmp_path):
    rng = np.random.default_rng(3)
    for form in ("wav16", "mp3", "flac16"):
        path = delivered(tmp_path, form, 2000)
        write_tags(path, FULL, bpm=120, key="C")
        whole = path.read_bytes()
        for _ in range(4):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 30):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            assert isinstance(read_tags(path), Tags)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_a_compressed_frame_that_swells_takes_no_memory_here(tmp_path):
    """Most of a gigabyte of zeros in some hundred kilobytes, in a tag of version 2.4 with a compressed frame."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone, as often as one likes
    data = first + again * 799

    def number(size: int) -> bytes:
        return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))

    frame = b"TIT2" + number(len(data) + 4) + b"\0\x09" + number(1000) + data
    (tmp_path / "bomb.mp3").write_bytes(b"ID3\4\0\0" + number(len(frame)) + frame)
    assert read_tags(tmp_path / "bomb.mp3") == Tags()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("BeyoncÃ©", "Beyoncé"),
        ("DvoÅ\x99Ã¡k", "Dvořák"),
        ("donâ€™t", "don’t"),
        ("Ærø", "Ærø"),
        ("naïve café", "naïve café"),
        ("Ð\x9fÑ\x80Ð¸Ð²ÐµÑ\x82", "Привет"),
        ("a\0\0", "a"),
        ("bad \ud800 half", "bad ? half"),
        ("", ""),
    ],
)
def test_text_is_repaired_only_where_it_is_beyond_doubt(text, meant):
    assert repaired(text) == meant


@pytest.mark.parametrize(
    ("key", "short"), [("A minor", "Am"), ("Db major", "Db"), ("F#m", "F#m"), ("8A", "8A"), ("", "")]
)
def test_a_key_is_written_as_dj_programs_write_it(key, short):
    assert short_key(key) == short
