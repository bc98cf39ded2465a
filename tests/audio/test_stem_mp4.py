"""Stems files, read back with FFmpeg and mutagen."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import signals

from tsbs_daw.audio import stem_mp4
from tsbs_daw.audio.headers.mp4_index import Box, boxes
from tsbs_daw.audio.read import open_audio
from tsbs_daw.audio.stem_mp4 import MASTERING_DSP, arranged, write_stem_mp4
from tsbs_daw.audio.tags import Tags, read_tags
from tsbs_daw.core.errors import OutputError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs the extra [media]")

RATE, SAMPLES = 44100, 80_003
COLORS = {"vocals": "#56b4e9", "drums": "#e69f00", "bass": "#009e73", "other": "#cc79a7"}
TAGS = Tags("Björk", "Jóga", "Homogenic", cover=b"\xff\xd8\xff" + bytes(999), cover_mime="image/jpeg")


def song_files(folder: Path, samples: int = SAMPLES, rate: int = RATE, channels: int = 2) -> tuple[Path, list]:
    """A master and its stems, noise of different seeds: each can be told from the others."""
    stems, total = [], np.zeros((channels, samples), np.float32)
    for seed, (name, color) in enumerate(COLORS.items()):
        sound = signals.noise(samples, channels=channels, seed=seed)
        total += sound
        stems.append((name, color, signals.write_file(folder / f"{name}.wav", sound, rate)))
    return signals.write_file(folder / "song.wav", total, rate), stems


def read_stem_box(path: Path) -> dict | None:
    """What the `stem` box says; None without one."""
    with path.open("rb") as file:
        parents = [Box(b"", 0, file.seek(0, 2))]
        for name in (b"moov", b"udta", b"stem"):
            parents = [box for parent in parents for box in boxes(file, parent.body, parent.end) if box.name == name]
        if not parents:
            return None
        file.seek(parents[0].body)
        return json.loads(file.read(parents[0].end - parents[0].body))


def tracks_of(path: Path) -> list[np.ndarray]:
    import av

    found = []
    with av.open(str(path)) as container:
        for number in range(len(container.streams.audio)):
            container.seek(0)
            found.append(np.concatenate([frame.to_ndarray() for frame in container.decode(audio=number)], axis=1))
    return found


def read_sound(path: Path) -> np.ndarray:
    with open_audio(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def lag(sound: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """How many samples `other` comes later, and how much of it is `sound` (1: all)."""
    size = 1 << (2 * max(sound.shape[1], other.shape[1])).bit_length()
    match = np.fft.irfft(np.fft.rfft(other[0], size) * np.conj(np.fft.rfft(sound[0], size)))
    best = int(match.argmax())
    return best if best < size // 2 else best - size, match.max() / np.square(sound[0]).sum()


def test_five_tracks_of_one_length_stand_at_the_same_sample(tmp_path):
    import av

    master, stems = song_files(tmp_path)
    path = tmp_path / "song.stem.mp4"
    write_stem_mp4(path, master, stems, TAGS, bpm=127.6, key="A minor")
    with av.open(str(path)) as container:
        for stream in container.streams.audio:
            assert (stream.codec_context.name, stream.codec_context.sample_rate) == ("aac", RATE)
            assert (stream.start_time, stream.duration) == (0, SAMPLES)
        assert [bool(s.disposition & s.disposition.default) for s in container.streams.audio] == [True] + [False] * 4
    expected = [master, *(tmp_path / f"{name}.wav" for name in ("drums", "bass", "other", "vocals"))]
    for file, track in zip(expected, tracks_of(path), strict=True):
        late, share = lag(read_sound(file), track)
        assert late == 0
        assert share > 0.5


def test_the_file_says_what_its_stems_are(tmp_path):
    master, stems = song_files(tmp_path)
    path = tmp_path / "song.stem.mp4"
    write_stem_mp4(path, master, stems, TAGS, bpm=127.6, key="A minor")
    assert read_stem_box(path) == {
        "mastering_dsp": MASTERING_DSP,
        "version": 1,
        "stems": [
            {"name": "Drums", "color": "#E69F00"},
            {"name": "Bass", "color": "#009E73"},
            {"name": "Other", "color": "#CC79A7"},
            {"name": "Vocals", "color": "#56B4E9"},
        ],
    }
    assert read_tags(path) == TAGS
    import mutagen

    tags = mutagen.File(path).tags
    assert (tags["tmpo"], bytes(tags["----:com.apple.iTunes:initialkey"][0])) == ([128], b"Am")


def test_any_player_plays_the_song_itself(tmp_path):
    master, stems = song_files(tmp_path)
    write_stem_mp4(tmp_path / "song.stem.mp4", master, stems, Tags())
    with open_audio(tmp_path / "song.stem.mp4") as reader:
        assert (reader.info.samples, reader.info.container) == (SAMPLES, "MP4")
        assert "5 audio tracks; the first is used" in reader.info.warnings[0]
        found = np.concatenate(list(reader.blocks()), axis=1)
    assert found.shape == (2, SAMPLES)
    assert lag(read_sound(master), found)[0] == 0


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (96000, 1)])
def test_other_rates_and_mono_become_what_decks_read(tmp_path, rate, channels):
    master, stems = song_files(tmp_path, 60_001, rate, channels)
    write_stem_mp4(tmp_path / "song.stem.mp4", master, stems, Tags())
    tracks = tracks_of(tmp_path / "song.stem.mp4")
    assert {track.shape[0] for track in tracks} == {2}
    with open_audio(tmp_path / "song.stem.mp4") as reader:
        assert reader.info.samples == round(60_001 * RATE / rate)


def test_missing_stems_are_silent_tracks_and_the_others_stay_where_decks_expect_them(tmp_path):
    master, stems = song_files(tmp_path, 20_000)
    write_stem_mp4(
        tmp_path / "song.stem.mp4", master, [stem for stem in stems if stem[0] in ("vocals", "drums")], Tags()
    )
    tracks = tracks_of(tmp_path / "song.stem.mp4")
    assert [bool(np.abs(track).max() > 0.01) for track in tracks] == [True, True, False, False, True]
    names = [stem["name"] for stem in read_stem_box(tmp_path / "song.stem.mp4")["stems"]]
    assert names == ["Drums", "-", "-", "Vocals"]


def test_stems_of_other_names_take_the_tracks_that_are_left():
    guitar, bass, piano = ((name, "#112233", Path(name)) for name in ("guitar", "bass", "piano"))
    assert arranged([guitar, bass, piano]) == [guitar, bass, piano, None]


def test_what_cannot_be_a_stems_file_is_refused_and_leaves_nothing(tmp_path):
    master, stems = song_files(tmp_path, 20_000)
    before = sorted(tmp_path.iterdir())
    target = tmp_path / "song.stem.mp4"
    with pytest.raises(OutputError, match="cannot hold 5 stems"):
        write_stem_mp4(target, master, [*stems, stems[0]], Tags())
    signals.write_file(tmp_path / "drums.wav", signals.noise(19_000))
    with pytest.raises(OutputError, match="differ in length from the song"):
        write_stem_mp4(target, master, stems, Tags())
    signals.write_file(tmp_path / "drums.wav", signals.noise(20_000, channels=3))
    with pytest.raises(OutputError, match=r"has 3 channels; a \.stem\.mp4 is stereo"):
        write_stem_mp4(target, master, stems, Tags())
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch):
    master, stems = song_files(tmp_path, 1000)
    monkeypatch.setattr(stem_mp4.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r"pip install 'tsbs-daw\[media\]'"):
        write_stem_mp4(tmp_path / "song.stem.mp4", master, stems, Tags())


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tsbs_daw.audio.tags import Tags
from tsbs_daw.core.errors import OutputError
from tsbs_daw.audio.stem_mp4 import write_stem_mp4
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
folder = Path(sys.argv[1])
stems = [(name, "#ffffff", folder / f"{name}.wav") for name in ("drums", "bass")]
try:
    write_stem_mp4(folder / "song.stem.mp4", folder / "song.wav", stems, Tags())
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_disk_that_stops_half_way_leaves_no_torso(tmp_path):
    song_files(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "too large for the file system" in done.stdout
    assert sorted(tmp_path.iterdir()) == before
