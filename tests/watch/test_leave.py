"""Moving and deleting sources: only after the stems were verified, only what was separated, and never half."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.publishing import identity, manifest_for
from harness.stage import write_song

from tsbs_daw.contracts.job import Result, State
from tsbs_daw.core.files import file_sha256
from tsbs_daw.pipeline.publish import StagedFolder
from tsbs_daw.queue.records import SeenFile
from tsbs_daw.watch import leave as leaving
from tsbs_daw.watch.leave import Stays, leave
from tsbs_daw.watch.rules import KEEP, After
from tsbs_daw.watch.scan import file_state

DELETE = After("delete")


class Separated:
    """A song in a watch folder whose stems were published."""

    def __init__(self, folder: Path, name: str = "x/Night Drive.wav"):
        self.root, self.done = folder / "in", folder / "done"
        self.source = write_song(self.root / name)
        self.content = self.source.read_bytes()
        digest = file_sha256(self.source)
        state = file_state(self.source.stat())
        self.file = SeenFile(str(self.root), name, state, input_hash=digest, job_id="job-1")
        with StagedFolder(folder / "out", "song", preset="none", identity=identity("a"), job="job", fence=1) as staged:
            for stem in ("vocals", "drums"):
                (staged.folder / f"{stem}.wav").write_bytes(stem.encode() * 100)
            made = manifest_for(staged, "a")
            stems = tuple(
                stem.model_copy(update={"sha256": file_sha256(staged.folder / stem.file)}) for stem in made.stems
            )
            origin = made.source.model_copy(update={"sha256": digest})
            published = staged.publish(made.model_copy(update={"stems": stems, "source": origin}))
        self.folder = published.folder
        self.result = Result(id="job-1", state=State.DONE, folder=self.folder)

    @property
    def move(self) -> After:
        return After("move", self.done)

    def leave(self, after: After, is_watched: Callable[[Path], bool] = lambda place: False):
        return leave(self.file, after, self.result, is_watched)

    def files(self) -> dict[str, bytes]:
        """Everything beside the stems, hidden files too."""
        places = [*self.root.rglob("*"), *self.done.rglob("*")]
        return {path.relative_to(self.root.parent).as_posix(): path.read_bytes() for path in places if path.is_file()}


@pytest.fixture
def song(tmp_path: Path) -> Separated:
    return Separated(tmp_path)


@pytest.fixture(params=["rename", "no links", "copy", "copy, no links", "mounted on itself"])
def way(request, monkeypatch):
    """The ways to move a file: on one file system, without hard links, to another, both, and a bind mount."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def other_device(path: Path, name: Path, **_: object) -> None:
        if path.parent != name.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        path_link(path, name)

    path_link = os.link
    if "no links" in request.param:
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "mounted on itself":
        monkeypatch.setattr(os, "link", other_device)
    if "copy" in request.param:
        monkeypatch.setattr(leaving, "_same_file_system", lambda *_: False)
    return request.param


def test_keep_does_nothing(song):
    assert song.leave(KEEP) is None
    assert song.files() == {"in/x/Night Drive.wav": song.content}


def test_delete_deletes_it(song):
    assert song.leave(DELETE).path is None
    assert song.files() == {}


def test_move_keeps_subfolder_content_and_time(song, way):
    os.utime(song.source, ns=(10**18, 10**18))
    song.file = SeenFile(**(vars(song.file) | {"state": file_state(song.source.stat())}))
    departure = song.leave(song.move)
    assert departure.path == song.done / "x" / "Night Drive.wav"
    assert song.files() == {"done/x/Night Drive.wav": song.content}
    assert departure.path.stat().st_mtime_ns == 10**18


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_replaced(song, way):
    for name in ("Night Drive.wav", "Night Drive (2).wav"):
        write_song(song.done / "x" / name, seed=9)
    assert song.leave(song.move).path.name == "Night Drive (3).wav"
    assert song.files()["done/x/Night Drive (3).wav"] == song.content
    assert len(song.files()) == 3


@pytest.mark.parametrize("after", ["delete", "move"])
def test_it_may_be_repeated_after_it_was_done(song, after):
    rule = DELETE if after == "delete" else song.move
    first = song.leave(rule)
    assert song.leave(rule) == first


@pytest.mark.parametrize("after", ["delete", "move"])
@pytest.mark.parametrize(
    ("harm", "reason"),
    {
        "shorter": "missing or was changed",
        "other content": "missing or was changed",
        "missing": "missing or was changed",
        "a folder": "missing or was changed",
        "no manifest": "no longer in",
        "another song's": "belong to another song",
        "nothing delivered": "no folder",
        "share gone": "cannot be verified",
    }.items(),
)
def test_a_file_whose_stems_cannot_be_verified_stays(song, after, harm, reason):
    stem = song.folder / "vocals.wav"
    if harm == "shorter":
        stem.write_bytes(stem.read_bytes()[:-1])
    elif harm == "other content":
        stem.write_bytes(stem.read_bytes()[:-1] + b"x")
    elif harm == "missing":
        stem.unlink()
    elif harm == "a folder":
        stem.unlink()
        stem.mkdir()
    elif harm == "no manifest":
        (song.folder / "manifest.json").unlink()
    elif harm == "another song's":
        song.file = SeenFile(**(vars(song.file) | {"input_hash": "f" * 64}))
    elif harm == "nothing delivered":
        song.result = Result(id="job-1", state=State.DONE)
    else:
        song.folder.parent.rename(song.folder.parent.with_name("away"))
    with pytest.raises(Stays, match=reason) as stays:
        song.leave(DELETE if after == "delete" else song.move)
    assert stays.value.passing == (harm == "share gone")
    assert song.files() == {"in/x/Night Drive.wav": song.content}


@pytest.mark.parametrize("after", ["delete", "move"])
@pytest.mark.parametrize("change", ["written", "same size", "replaced", "touched", "a link", "a folder"])
def test_a_file_that_changed_is_not_touched(song, after, change):
    other = write_song(song.root.parent / "other.wav", seed=5)
    if change == "written":
        song.source.write_bytes(song.content + b"more")
    elif change == "same size":
        song.source.write_bytes(other.read_bytes())
    elif change == "replaced":
        other.replace(song.source)
    elif change == "touched":
        os.utime(song.source)
    elif change == "a link":
        song.source.rename(song.root / "real.wav")
        song.source.symlink_to(song.root / "real.wav")
    else:
        song.source.unlink()
        song.source.mkdir()
    before = song.files()
    with pytest.raises(Stays):
        song.leave(DELETE if after == "delete" else song.move)
    assert song.files() == before
    assert os.path.lexists(song.source)


@pytest.mark.parametrize("after", ["delete", "move"])
def test_a_file_that_is_replaced_at_the_last_moment_is_put_back(song, after, monkeypatch):
    real = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path == song.source:
            write_song(song.source.with_name(".new"), seed=7).replace(song.source)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(Stays, match="changed"):
        song.leave(DELETE if after == "delete" else song.move)
    assert song.files() == {"in/x/Night Drive.wav": write_song(song.root.parent / "n.wav", seed=7).read_bytes()}


class Killed(BaseException):
    """Stands for a kill: no handler of the code sees it."""


@pytest.mark.parametrize("after", ["delete", "move"])
@pytest.mark.parametrize("step", range(12))
def test_a_kill_before_any_step_loses_nothing_and_the_next_try_finishes(song, way, after, step, monkeypatch):
    steps = 0

    def deadly(real):
        def call(*positional: object, **named: object) -> object:
            nonlocal steps
            steps += 1
            if steps - 1 == step:
                raise Killed
            return real(*positional, **named)

        return call

    rule = DELETE if after == "delete" else song.move
    with monkeypatch.context() as patch:
        for owner, name in (
            (os, "link"),
            (Path, "rename"),
            (Path, "unlink"),
            (leaving, "sync_folder"),
            (leaving, "sync_file"),
        ):
            patch.setattr(owner, name, deadly(getattr(owner, name)))
        try:
            song.leave(rule)
        except Killed:
            content = set(song.files().values())
            assert content == {song.content} or after == "delete"
    song.leave(rule)
    assert song.files() == ({} if after == "delete" else {"done/x/Night Drive.wav": song.content})


def test_a_rule_that_was_taken_back_meanwhile_counts(song, monkeypatch):
    def die(path: Path, **_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            song.leave(DELETE)
    assert list(song.files()) == ["in/x/.tsbs-daw-leaving-job-1.wav"]
    song.leave(KEEP)
    assert song.files() == {"in/x/Night Drive.wav": song.content}


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_trouble_of_the_target_leaves_the_file_and_is_tried_again(song, trouble, monkeypatch):
    monkeypatch.setattr(leaving, "_same_file_system", lambda *_: False)

    def refuse(path: Path, **_: object) -> None:
        raise OSError(trouble, os.strerror(trouble), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(leaving, "create_new", refuse)
        with pytest.raises(Stays) as stays:
            song.leave(song.move)
    assert stays.value.passing
    assert os.strerror(trouble) in str(stays.value)
    assert song.files() == {"in/x/Night Drive.wav": song.content}
    assert song.leave(song.move).path == song.done / "x" / "Night Drive.wav"


def test_a_full_disk_in_the_middle_of_a_copy_leaves_no_part(song, monkeypatch):
    monkeypatch.setattr(leaving, "_same_file_system", lambda *_: False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(leaving, "sync_file", full)
    with pytest.raises(Stays, match="No space"):
        song.leave(song.move)
    assert song.files() == {"in/x/Night Drive.wav": song.content}


def test_a_share_that_is_not_mounted_is_waited_for(song, monkeypatch):
    monkeypatch.setattr(leaving, "unmounted", lambda folder: folder.parent)
    with pytest.raises(Stays, match="not mounted") as stays:
        song.leave(song.move)
    assert stays.value.passing
    assert not song.done.exists()


def test_a_subfolder_that_leads_back_into_a_watch_folder_is_refused(tmp_path):
    song = Separated(tmp_path, "in/song.wav")
    with pytest.raises(Stays, match="would be found again"):
        song.leave(After("move", tmp_path), lambda place: place == song.root)
    assert song.source.exists()
