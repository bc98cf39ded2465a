"""Publishing: whole or not at all, never over what is there, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import publishing
from harness.publishing import SONG, identity, manifest_for, publish
from rights import PYTHON, needs_rights
from timeouts import PATIENCE_S

from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import FAILPOINT_EXIT_CODE, FAILPOINTS
from tsbs_daw.core.errors import LeaseLost, NoSpaceLeft, OutputError
from tsbs_daw.pipeline import publish as module
from tsbs_daw.pipeline.publish import (
    Published,
    StagedFolder,
    ensure_space,
    estimate_bytes,
    find_previous_run,
    remove_stale,
    temporary_folders,
)

PROGRAM = [sys.executable, str(Path(publishing.__file__))]


def visible(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir() if not path.name.startswith("."))


def open_staged(output: Path, *, letter: str = "a", job: str = "job", fence: int = 1) -> StagedFolder:
    return StagedFolder(output, SONG, preset="none", identity=identity(letter), job=job, fence=fence)


def test_the_folder_appears_whole_with_the_manifest_and_nothing_else(tmp_path: Path):
    published = publish(tmp_path / "new" / "out")
    assert published.folder == tmp_path / "new" / "out" / SONG and not published.recognised
    assert sorted(path.name for path in published.folder.iterdir()) == ["drums.wav", "manifest.json", "vocals.wav"]
    assert list((tmp_path / "new" / "out").iterdir()) == [published.folder]
    assert read_manifest(published.folder).identity == identity("a")


def test_nothing_is_visible_before_it_is_published(tmp_path: Path):
    with open_staged(tmp_path) as delivery:
        (delivery.folder / "vocals.wav").write_bytes(b"x")
        assert visible(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_is_recognised_and_nothing_is_written(tmp_path: Path):
    first = publish(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = publish(tmp_path, "job2", 7)
    assert again.folder == first.folder and again.recognised
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [first.folder]
    assert find_previous_run(tmp_path, SONG, identity("a")) == first.folder
    assert find_previous_run(tmp_path, SONG, identity("b")) is None
    assert find_previous_run(tmp_path / "nowhere", SONG, identity("a")) is None


def test_other_runs_of_the_song_get_their_own_folders(tmp_path: Path):
    folders = [publish(tmp_path, letter=letter).folder.name for letter in "abcd"]
    assert folders == [SONG, f"{SONG} (none)", f"{SONG} (none 2)", f"{SONG} (none 3)"]
    for letter, name in zip("abcd", folders, strict=True):
        assert (tmp_path / name / "vocals.wav").read_bytes() == letter.encode() * 1000
        assert publish(tmp_path, letter=letter).recognised
    shutil.rmtree(tmp_path / folders[1])
    assert find_previous_run(tmp_path, SONG, identity("d")).name == folders[3], "a gap in the numbers hides nothing"


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "dangling link"])
def test_what_is_in_the_way_is_left_as_it_is(tmp_path: Path, kind: str):
    way = tmp_path / SONG
    if kind == "file":
        way.write_text("mine")
    elif kind == "dangling link":
        way.symlink_to(tmp_path / "gone")
    else:
        way.mkdir()
    if kind == "folder":
        (way / "mine.txt").write_text("mine")
    before = os.lstat(way)
    assert publish(tmp_path).folder.name == f"{SONG} (none)"
    assert os.lstat(way).st_ino == before.st_ino
    assert not (way / "manifest.json").exists()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_run_whose_stems_were_deleted_or_cut_is_made_again_beside_it(tmp_path: Path, damage: str):
    stem = publish(tmp_path).folder / "vocals.wav"
    stem.unlink() if damage == "missing" else stem.write_bytes(b"x")
    again = publish(tmp_path)
    assert not again.recognised and again.folder.name == f"{SONG} (none)"


def publish_analysed(output: Path, *, fence: int = 1, analysed: bool = True) -> Published:
    """A run whose analysis was asked for, and came to something or not."""
    with open_staged(output, fence=fence) as delivery:
        (delivery.folder / "vocals.wav").write_bytes(b"a" * 1000)
        (delivery.folder / "song.RPP").write_text("session")
        values = {"sessions": ("song.RPP",)}
        if analysed:
            (delivery.folder / "analysis.json").write_text("{}")
            values["analysis"] = "analysis.json"
        return delivery.publish(manifest_for(delivery, "a").model_copy(update=values))


def test_a_run_that_has_its_analysis_takes_the_place_of_one_without(tmp_path: Path):
    publish_analysed(tmp_path, analysed=False)
    assert find_previous_run(tmp_path, SONG, identity("a")).name == SONG
    assert find_previous_run(tmp_path, SONG, identity("a"), analysed=True) is None
    assert publish_analysed(tmp_path, fence=2, analysed=False).recognised, "again in vain: nothing is written"
    found = publish_analysed(tmp_path, fence=3)
    assert (found.folder.name, found.recognised) == (SONG, False)
    assert list(tmp_path.iterdir()) == [found.folder], "nothing is left behind"
    assert find_previous_run(tmp_path, SONG, identity("a"), analysed=True) == found.folder
    assert publish_analysed(tmp_path, fence=4, analysed=False).recognised, "and is not given up for one without"


@pytest.mark.parametrize("work", ["a new file", "a saved session", "a file taken away"])
def test_a_folder_that_somebody_worked_in_is_left_alone(tmp_path: Path, work: str):
    folder = publish_analysed(tmp_path, analysed=False).folder
    if work == "a new file":
        (folder / "my bounce.wav").write_bytes(b"mine")
    elif work == "a saved session":
        (folder / "song.RPP").write_text("mine")
        os.utime(folder / "song.RPP", (2e9, 2e9))
    else:
        (folder / "song.RPP").unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert publish_analysed(tmp_path, fence=2).folder.name == f"{SONG} (none)"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_stem_that_is_not_as_long_as_the_manifest_says_is_not_published(tmp_path: Path, damage: str):
    with pytest.raises(OutputError, match="nothing was published"), open_staged(tmp_path) as delivery:
        stem = delivery.folder / "vocals.wav"
        stem.write_bytes(b"x" * 1000)
        manifest = manifest_for(delivery, "a")
        stem.unlink() if damage == "missing" else os.truncate(stem, 999)
        delivery.publish(manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), OSError(errno.ENAMETOOLONG, "broken")])
def test_after_any_error_the_temporary_folder_is_gone(tmp_path: Path, error: BaseException):
    with pytest.raises(type(error)), open_staged(tmp_path) as delivery:
        (delivery.folder / "vocals.wav").write_bytes(b"x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_when_fsync_fails_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tsbs_daw.core.files.os.fsync", broken)
    monkeypatch.setattr("tsbs_daw.core.files.sync_file", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        publish(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_made_is_explained(tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="choose another"):
        publish(tmp_path / "out")


@pytest.mark.parametrize("name", FAILPOINTS)
def test_killed_at_a_failpoint_it_is_published_once_by_the_next_attempt(tmp_path: Path, name: str):
    marker = tmp_path / "died"
    output = tmp_path / "out"
    environment = {**os.environ, "TSBS_DAW_FAILPOINT": f"{name}@{marker}"}
    killed = subprocess.run([*PROGRAM, str(output), "job", "1"], env=environment, capture_output=True, check=False)
    assert killed.returncode == FAILPOINT_EXIT_CODE and marker.exists()
    assert visible(output) == ([SONG] if name == "after-rename" else [])
    subprocess.run([*PROGRAM, str(output), "job", "2"], env=environment, capture_output=True, check=True)
    assert [path.name for path in output.iterdir()] == [SONG], "published once, and nothing left behind"
    assert find_previous_run(output, SONG, identity("a"))


@pytest.mark.parametrize("letters", ["aaaaa", "abcde"])
def test_publishers_at_the_same_moment_never_mix_or_overwrite(tmp_path: Path, letters: str):
    output, start = tmp_path / "out", tmp_path / "start"
    running = []
    for number, letter in enumerate(letters):
        arguments = [str(output), f"job{number}", "1", "--input", letter, "--wait-for", str(start)]
        running.append(subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, text=True))
    start.touch()
    for process in running:
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
    folders = sorted(output.iterdir())
    assert len(folders) == len(set(letters)), [folder.name for folder in folders]
    for folder in folders:
        contents = {(folder / f"{stem}.wav").read_bytes() for stem in ("vocals", "drums")}
        (content,) = contents
        assert read_manifest(folder).identity == identity(content[:1].decode())


def test_a_stalled_attempt_that_comes_back_is_fenced_out(tmp_path: Path):
    with pytest.raises(LeaseLost, match="later attempt"), open_staged(tmp_path, fence=1) as stalled:
        (stalled.folder / "vocals.wav").write_bytes(b"old")
        manifest = manifest_for(stalled, "a")
        assert publish(tmp_path, "job", 2).folder.name == SONG
        stalled.publish(manifest)
    assert [path.name for path in tmp_path.iterdir()] == [SONG]
    assert (tmp_path / SONG / "vocals.wav").read_bytes() == b"a" * 1000


def test_stale_folders_of_dead_jobs_are_removed_and_nothing_else(tmp_path: Path):
    for name in (".tmp-dead-1", ".tmp-alive-2", ".tmp-unknown-3", ".tmp-old-unknown-4", "song", ".tmp-", ".tmp-x-y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocals.wav").write_bytes(b"x")
    (tmp_path / ".tmp-file-1").write_text("a file, not a folder")
    for path in (tmp_path / ".tmp-old-unknown-4", tmp_path / ".tmp-old-unknown-4" / "vocals.wav"):
        os.utime(path, (1000.0, 1000.0))
    asked = []

    def running(job: str, fence: int) -> bool | None:
        asked.append((job, fence))
        return {"dead": False, "alive": True}.get(job)

    removed = remove_stale(tmp_path, running)
    assert sorted(path.name for path in removed) == [".tmp-dead-1", ".tmp-old-unknown-4"]
    assert sorted(asked) == [("alive", 2), ("dead", 1), ("old-unknown", 4), ("unknown", 3)]
    assert {path.name for path in tmp_path.iterdir()} == {
        ".tmp-alive-2",
        ".tmp-unknown-3",
        "song",
        ".tmp-",
        ".tmp-x-y",
        ".tmp-file-1",
    }
    assert remove_stale(tmp_path / "nowhere", running) == []


def test_too_little_space_is_said_with_figures_before_anything_is_written(tmp_path: Path):
    with pytest.raises(NoSpaceLeft, match=r"free and 'Song' needs \d+\.\d GB; free some space") as caught:
        ensure_space(tmp_path / "not" / "yet", shutil.disk_usage(tmp_path).total, "Song")
    assert caught.value.retryable
    ensure_space(tmp_path / "not" / "yet", 1, "Song")
    assert list(tmp_path.iterdir()) == []


@needs_rights
def test_a_folder_without_rights_is_said_before_anything_is_separated(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o555)
    code = (
        "import sys, pathlib\nfrom tsbs_daw.pipeline.publish import ensure_space\n"
        "ensure_space(pathlib.Path(sys.argv[1]), 1, 'Song')\n"
    )
    asked = [*PYTHON, "-c", code, str(tmp_path / "locked" / "not" / "yet")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert "OutputUnavailable" in done.stderr and "locked cannot be written to; check its permissions" in done.stderr


def test_the_estimate_covers_what_is_written():
    assert 4 * 2 * 44100 * 60 * 4 <= estimate_bytes(4, 2, 44100 * 60) < 4 * 2 * 44100 * 60 * 4 * 1.02


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full (Linux)")
def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(NoSpaceLeft, match="became full") as caught, open_staged(tmp_path) as delivery:
        (delivery.folder / "vocals.wav").write_bytes(b"x" * 1000)
        (delivery.folder / "drums.wav").symlink_to("/dev/full")
        with (delivery.folder / "drums.wav").open("wb") as file:
            file.write(b"x" * 100000)
    assert caught.value.retryable
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_disk_that_takes_no_large_files_is_explained(tmp_path: Path):
    limit = "ulimit -f 8; trap '' XFSZ; exec \"$@\""
    command = ["sh", "-c", limit, "sh", *PROGRAM, str(tmp_path / "out"), "job", "1", "--size", "100000"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert "OutputError" in found.stdout and "does not support files as large" in found.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_a_real_full_disk_is_reported_cleaned_and_works_again_when_there_is_room(tmp_path: Path):
    """In a mount namespace of its own, where a child may mount a disk of 512 KiB without being root."""
    disk, script = tmp_path / "disk", tmp_path / "script.sh"
    disk.mkdir()
    arguments = f"'{disk}/out' job 1 --size"
    script.write_text(
        f"mount -t tmpfs -o size=512k none '{disk}' || exit 77\n"
        f'"$@" {arguments} 400000; echo "status $?"; ls -A "{disk}/out"\n'
        f'"$@" {arguments} 1000 && ls -A "{disk}/out"\n'
    )
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs the command unshare")
    command = [unshare, "--map-root-user", "--mount", "sh", str(script), *PROGRAM]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode in (1, 77) and "status" not in found.stdout:
        pytest.skip(f"this system does not let a test mount a disk: {found.stderr.strip()}")
    failed, status, *rest = found.stdout.strip().splitlines()
    assert failed.startswith("NoSpaceLeft: ") and "became full" in failed
    assert status == "status 1"
    assert rest[0].startswith("Published("), f"left behind on the full disk: {rest}"
    assert rest[1:] == [SONG]


def test_temporary_folders_are_told_apart_by_job_and_fence(tmp_path: Path):
    with open_staged(tmp_path, job="20260101-120000-abcdef", fence=12) as delivery:
        assert temporary_folders(tmp_path) == [(delivery.folder, "20260101-120000-abcdef", 12)]
    assert module.temporary_folders(tmp_path) == []
