"""What is hashed is what is decoded: a source that changes meanwhile fails retryably and is not cached."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import signals
from harness.studio import Studio

from tsbs_daw.audio.read import AudioReader, open_audio
from tsbs_daw.core import files
from tsbs_daw.core.errors import SourceChanged, SourceUnavailable, UnreadableAudio
from tsbs_daw.core.files import HashedFile
from tsbs_daw.pipeline import resolve, separate


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


def rewrite(path: Path, other: Path) -> None:
    """In place, as a DAW renders to the same name again."""
    path.write_bytes(other.read_bytes())


def replace(path: Path, other: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(other, copy)
    copy.replace(path)


def rewrite_with_old_times(path: Path, other: Path) -> None:
    """In place, with the time of the last write put back, as some synchronisers do."""
    before = path.stat()
    rewrite(path, other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def append(path: Path, other: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(8))


def truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


WAYS = [rewrite, replace, rewrite_with_old_times, append, truncate]


def after(monkeypatch, place, name: str, change) -> None:
    """Let `change` happen once, right after the first call of `place.name`."""
    original, happened = getattr(place, name), []

    def changed(*arguments, **options):
        result = original(*arguments, **options)
        if not happened:
            happened.append(True)
            change()
        return result

    monkeypatch.setattr(place, name, changed)


def cached(studio: Studio) -> list[str]:
    folder = studio.settings.cache / "stems"
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["after the hash", "after the first block", "after the last block"])
def test_a_source_that_changes_fails_retryably_and_is_not_cached(studio, monkeypatch, way, moment):
    song = studio.song(duration_s=3.0)
    other = signals.write_file(song.with_name("other.wav"), signals.noise(3 * 44100))
    assert other.stat().st_size == song.stat().st_size

    def change() -> None:
        way(song, other)

    if moment == "after the hash":
        after(monkeypatch, resolve.HashedFile, "of", change)
    elif moment == "after the first block":
        after(monkeypatch, AudioReader, "read", change)
    else:
        after(monkeypatch, separate._Background, "wait", change)
    if way is replace and moment != "after the hash":
        studio.run(song)  # what was hashed is still what is open
        return
    with pytest.raises(SourceChanged, match="changed while it was read") as refusal:
        studio.run(song)
    assert refusal.value.retryable
    assert cached(studio) == []
    assert not any(studio.out.glob("*"))
    monkeypatch.undo()
    if way is truncate:
        return
    result = studio.run(song)
    stems = np.sum([signals_of(result.folder / f"{stem.name}.wav") for stem in result.stems], axis=0)
    mixture, residual_db = signals_of(song), studio.manifest(result)["residual_db"]
    left_db = 10 * np.log10(np.square(mixture - stems).sum() / np.square(mixture).sum())
    assert left_db == pytest.approx(residual_db, abs=0.1)


def signals_of(path: Path) -> np.ndarray:
    with open_audio(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1).astype(np.float64)


def test_a_source_that_is_only_touched_or_moved_is_not_taken_for_changed(studio, monkeypatch):
    song = studio.song()
    past_ns = 1_600_000_000 * 10**9
    os.utime(song, ns=(past_ns, past_ns))
    after(monkeypatch, AudioReader, "read", lambda: song.chmod(0o600))
    assert studio.run(song).stems


def test_a_file_that_changes_while_it_is_hashed_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "song.wav"
    path.write_bytes(bytes(3 << 20))
    after(monkeypatch, files, "sha256_of", lambda: path.write_bytes(b"shorter"))
    with pytest.raises(SourceChanged):
        HashedFile.of(path)


def gone_song(tmp_path: Path, studio: Studio, kind: str, monkeypatch) -> Path:
    """A path that leads to no file, in one of the ways that there are."""
    monkeypatch.setattr(files, "MOUNTS_BELOW", (str(tmp_path / "mnt"),))
    share = tmp_path / "mnt" / "nas"
    share.mkdir(parents=True)
    song = studio.song()
    if kind == "deleted":
        song.unlink()
        return song
    if kind == "link to a deleted one":
        link = song.with_name("link.wav")
        link.symlink_to(song)
        song.unlink()
        return link
    if kind == "deleted from a share":
        (share / "other.wav").touch()
        return share / "song.wav"
    if kind == "folder gone":
        return song.parent / "renders" / "song.wav"
    if kind == "share gone":
        return share / "song.wav"
    if kind == "folder of a share gone":
        return share / "renders" / "song.wav"
    link = song.with_name("link.wav")
    link.symlink_to(share / "song.wav")
    return link


@pytest.mark.parametrize("kind", ["deleted", "link to a deleted one", "deleted from a share"])
@pytest.mark.parametrize("opening", ["run", "open_audio"])
def test_a_source_that_is_missing_from_its_folder_is_told_at_once(tmp_path, studio, monkeypatch, kind, opening):
    song = gone_song(tmp_path, studio, kind, monkeypatch)
    with pytest.raises(UnreadableAudio, match=r"'.*\.wav' is missing from its folder; check whether") as refusal:
        studio.run(song) if opening == "run" else open_audio(song)
    assert not refusal.value.retryable


@pytest.mark.skipif(os.name == "nt", reason="mount points")
@pytest.mark.parametrize(
    "kind", ["folder gone", "share gone", "folder of a share gone", "link to a share that is gone"]
)
@pytest.mark.parametrize("opening", ["run", "open_audio"])
def test_a_source_whose_folder_or_share_is_gone_is_tried_again(tmp_path, studio, monkeypatch, kind, opening):
    song = gone_song(tmp_path, studio, kind, monkeypatch)
    with pytest.raises(SourceUnavailable) as refusal:
        studio.run(song) if opening == "run" else open_audio(song)
    assert refusal.value.retryable


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_source_that_is_no_regular_file_is_refused_without_waiting(studio, kind):
    song = studio.song()
    song.unlink()
    if kind == "pipe":
        os.mkfifo(song)
    elif kind == "device":
        song.symlink_to("/dev/zero")
    else:
        song.mkdir()
    with pytest.raises(UnreadableAudio) as refusal:
        studio.run(song)
    assert not refusal.value.retryable
