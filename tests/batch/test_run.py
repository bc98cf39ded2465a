"""A batch and its queue: what is done, what is not done again, and what becomes of songs that cannot be done."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from batch.stage import ListenerLog, batch_in, run_batch, states, the
from harness.stage import (
    QUICK,
    DaemonThread,
    job_for,
    let_go,
    lines,
    python_path,
    result_of,
    rows,
    settings_in,
    until,
    write_song,
)
from timeouts import PATIENCE_S

from tsbs_daw.batch.plan import FILE_NAME as CACHE_FOLDER
from tsbs_daw.contracts.catalogue import CSV, JSON, Catalogue
from tsbs_daw.contracts.job import State, Treatment
from tsbs_daw.core.errors import DaemonError, UsageError
from tsbs_daw.models import registry
from tsbs_daw.queue.spool import living_daemon, request_cancel, submit

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins use POSIX signals")


@pytest.fixture(autouse=True)
def _workers_find_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


def runs(place: Path) -> list[str]:
    """The songs that a worker was given, in this order."""
    return [line.split(" ", 2)[2] for line in lines(settings_in(place), "runs.log")]


def written(place: Path) -> Catalogue:
    return Catalogue.from_json((place / "out" / JSON).read_bytes(), JSON)


def test_every_song_gets_its_folder_and_its_entry(tmp_path):
    request = batch_in(tmp_path, "One.wav", "B sides/Two.flac", "B sides/deep/Kay - Three.aiff")
    listener = ListenerLog()
    catalogue = run_batch(request, listener)
    assert states(catalogue) == dict.fromkeys(["B sides/Two.flac", "B sides/deep/Kay - Three.aiff", "One.wav"], "done")
    for song in catalogue.songs:
        (file,) = song.files
        assert file.name == "vocals" and (request.out / file.file).is_file()
        assert (request.out / song.folder / "manifest.json").is_file()
    assert the(catalogue, "B sides/Two.flac").folder == "B sides/Two"
    assert written(tmp_path).model_dump(mode="json")["songs"] == catalogue.model_dump(mode="json")["songs"]
    assert len((request.out / CSV).read_text("utf-8-sig").splitlines()) == 4
    assert sorted(listener.endings) == sorted((song.source, "done", True) for song in catalogue.songs)
    assert {row.origin for row in rows(settings_in(tmp_path))} == {"batch"}
    assert listener.views[-1].ended == listener.views[-1].total == 3


def test_a_second_run_does_nothing_and_reads_nothing(tmp_path, monkeypatch):
    request = batch_in(tmp_path, "One.wav", "Two.wav")
    first = run_batch(request)

    def forbidden(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("tsbs_daw.batch.plan.file_sha256", forbidden)
    listener = ListenerLog()
    second = run_batch(request, listener)
    assert second.songs == first.songs and len(runs(tmp_path)) == 2
    assert [fresh for _, _, fresh in listener.endings] == [False, False]


def test_only_what_is_new_changed_or_missing_is_done_again(tmp_path):
    request = batch_in(tmp_path, "Kept.wav", "Changed.wav", "Missing.wav", "Touched.wav")
    run_batch(request)
    before = len(runs(tmp_path))
    write_song(request.folder / "Changed.wav", 77)
    write_song(request.folder / "New.wav", 78)
    shutil.rmtree(request.out / "Missing")
    os.utime(request.folder / "Touched.wav", (1, 1))
    assert set(states(run_batch(request)).values()) == {"done"}
    assert sorted(runs(tmp_path)[before:]) == ["Changed", "Missing", "New"]


def test_stems_that_became_shorter_are_made_again(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    run_batch(request)
    (request.out / "One" / "vocals.wav").write_bytes(b"cut")
    song = the(run_batch(request), "One.wav")
    assert len(runs(tmp_path)) == 2 and song.state == "done"
    assert (request.out / song.files[0].file).stat().st_size > 3


def test_other_settings_are_another_run(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    run_batch(request)
    run_batch(replace(request, treatment=Treatment(null=True)))
    assert len(runs(tmp_path)) == 2
    run_batch(replace(request, treatment=Treatment(null=True)))
    assert len(runs(tmp_path)) == 2


def test_new_bundled_weights_are_another_run(tmp_path, monkeypatch):
    request = batch_in(tmp_path, "One.wav")
    run_batch(request)
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "default.safetensors")
    registry.BUNDLED.write_bytes(b"the weights of a new release")
    run_batch(request)
    assert len(runs(tmp_path)) == 2
    run_batch(request)
    assert len(runs(tmp_path)) == 2


def test_a_song_that_was_renamed_is_recognised_by_its_content(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    run_batch(request)
    (request.folder / "album").mkdir()
    (request.folder / "One.wav").rename(request.folder / "album" / "First.wav")
    catalogue = run_batch(request)
    assert states(catalogue) == {"album/First.wav": "done"} and len(runs(tmp_path)) == 1
    assert catalogue.songs[0].folder == "One"


def test_the_same_content_is_done_once(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    (request.folder / "sub").mkdir()
    shutil.copy(request.folder / "One.wav", request.folder / "sub" / "Again.wav")
    catalogue = run_batch(request)
    assert states(catalogue) == {"One.wav": "done", "sub/Again.wav": "duplicate"} and runs(tmp_path) == ["One"]
    again = the(catalogue, "sub/Again.wav")
    assert again.duplicate_of == "One.wav" and "'One.wav'" in again.reason and again.folder is None


def test_songs_whose_names_collide_each_get_a_folder(tmp_path):
    request = batch_in(tmp_path, "Song.wav", "Song.flac", "song .aiff", "So:ng.wav", "So_ng.wav", "Song/Inside.wav")
    catalogue = run_batch(request)
    assert set(states(catalogue).values()) == {"done"}
    folders = [song.folder for song in catalogue.songs]
    assert len({folder.casefold() for folder in folders}) == 6
    assert [the(run_batch(request), song.source).folder for song in catalogue.songs] == folders


def test_bad_songs_stop_nothing_and_say_why(tmp_path):
    request = batch_in(tmp_path, "refuse me.wav", "crash.wav", "break.wav", "Good.wav", "once.wav")
    listener = ListenerLog()
    catalogue = run_batch(request, listener)
    assert states(catalogue) == {
        "Good.wav": "done",
        "once.wav": "done",
        "refuse me.wav": "failed",
        "crash.wav": "failed",
        "break.wav": "failed",
    }
    reasons = {song.source: song.reason for song in catalogue.songs}
    assert "is not audio" in reasons["refuse me.wav"] and "crashed 3 times" in reasons["crash.wav"]
    assert reasons["break.wav"].endswith(".") and "\n" not in reasons["break.wav"]
    assert reasons["Good.wav"] is None


def test_a_song_that_failed_is_tried_again_by_the_next_run(tmp_path):
    request = batch_in(tmp_path, "refuse.wav", "Good.wav")
    run_batch(request)
    again = run_batch(request)
    assert states(again) == {"refuse.wav": "failed", "Good.wav": "done"}
    assert sorted(runs(tmp_path)) == ["Good", "refuse", "refuse"]


def test_a_name_that_was_kept_for_a_song_that_failed_and_is_gone_is_free_again(tmp_path):
    request = batch_in(tmp_path, "refuse.wav")
    run_batch(request)
    (request.folder / "refuse.wav").rename(request.folder / "refuse.flac")
    run_batch(request)
    rows_by_song = [row.song for row in rows(settings_in(tmp_path))]
    assert rows_by_song == ["refuse", "refuse"], "and not `refuse (2)`"


def test_a_full_disk_half_way_is_named_and_the_next_run_finishes_the_rest(tmp_path):
    request = batch_in(tmp_path, "Before.wav", "full.wav", "later.wav")
    catalogue = run_batch(request, options=replace(QUICK, retry_limit=2))
    assert states(catalogue) == {"Before.wav": "done", "full.wav": "failed", "later.wav": "done"}
    assert "full" in the(catalogue, "full.wav").reason and "space" in the(catalogue, "full.wav").reason
    assert states(run_batch(request)) == dict.fromkeys(["Before.wav", "full.wav", "later.wav"], "done")


def test_a_cancelled_song_says_so_and_is_done_by_the_next_run(tmp_path):
    request = batch_in(tmp_path, "hang.wav")
    settings = settings_in(tmp_path)

    def cancel(view):
        for row in rows(settings, State.RUNNING):
            request_cancel(settings.spool, row.id)

    song = the(run_batch(request, ListenerLog(cancel)), "hang.wav")
    assert song.state == "failed" and "cancelled" in song.reason


def test_what_cannot_be_read_or_named_is_refused_with_a_reason(tmp_path):
    request = batch_in(tmp_path, "Good.wav")
    write_song(tmp_path / "elsewhere" / "Outside.wav", 5)
    (request.folder / "Link.wav").symlink_to(tmp_path / "elsewhere" / "Outside.wav")
    (request.folder / "Lost.wav").symlink_to(request.folder / "gone.wav")
    shutil.copy(request.folder / "Good.wav", os.fsencode(request.folder) + b"/caf\xe9.wav")
    os.mkfifo(request.folder / "Pipe.wav")
    catalogue = run_batch(request)
    reasons = {song.source: song.reason for song in catalogue.songs if song.state == "failed"}
    assert set(reasons) == {"Link.wav", "Lost.wav", "caf\\xe9.wav", "Pipe.wav"}
    assert "out of the folder of songs" in reasons["Link.wav"] and "rename" in reasons["caf\\xe9.wav"]
    assert the(catalogue, "Good.wav").state == "done"


def test_an_empty_file_is_said_to_be_empty_and_no_duplicate_of_another(tmp_path):
    request = batch_in(tmp_path, "Good.wav")
    for name in ("a.wav", "b.mp3"):
        (request.folder / name).write_bytes(b"")
    catalogue = run_batch(request)
    reason = "It is empty (0 bytes); copy it again."
    assert [(song.state, song.reason) for song in catalogue.songs] == [("done", None), *[("failed", reason)] * 2]


def test_a_file_that_changes_while_it_is_read_waits_for_the_next_run(tmp_path, monkeypatch):
    from tsbs_daw.core.files import file_sha256

    request = batch_in(tmp_path, "Growing.wav")

    def growing(path: Path) -> str:
        with path.open("ab") as file:
            file.write(b"more")
        return file_sha256(path)

    monkeypatch.setattr("tsbs_daw.batch.plan.file_sha256", growing)
    song = the(run_batch(request), "Growing.wav")
    assert song.state == "failed" and "still being written" in song.reason
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", python_path())
    assert states(run_batch(request)) == {"Growing.wav": "done"}


def test_an_interrupt_keeps_what_is_done_and_the_next_run_goes_on(tmp_path):
    request = batch_in(tmp_path, "A first.wav", "held B.wav", "held C.wav", "held D.wav")

    def interrupt(view):
        if view.counts["done"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(request, ListenerLog(interrupt))
    left = written(tmp_path)
    assert the(left, "A first.wav").state == "done" and the(left, "held D.wav").state == "waiting"
    assert "rerun the command" in the(left, "held D.wav").reason
    let_go(settings_in(tmp_path), "held B", "held C", "held D")
    assert set(states(run_batch(request)).values()) == {"done"}
    published = [line.split()[2] for line in lines(settings_in(tmp_path), "published.log")]
    assert len(published) == 4


def test_a_daemon_that_is_there_does_the_work(tmp_path):
    request = batch_in(tmp_path, "One.wav", "Two.wav")
    with DaemonThread(settings_in(tmp_path)) as daemon:
        until(lambda: (settings_in(tmp_path).spool / "heartbeat.json").exists())
        listener = ListenerLog()
        assert set(states(run_batch(request, listener)).values()) == {"done"}
        assert daemon.kinds().count("done") == 2
    assert len(listener.notes) == 1 and f"process {os.getpid()}" in listener.notes[0]


def test_a_daemon_that_ends_is_replaced(tmp_path):
    request = batch_in(tmp_path, "A.wav", "held B.wav", "held C.wav")
    daemon = DaemonThread(settings_in(tmp_path))
    stopping = []

    def stop(view):
        if view.counts["done"] and not stopping:
            stopping.append(daemon.daemon.stop())
            let_go(settings_in(tmp_path), "held B", "held C")

    with daemon:
        until(lambda: (settings_in(tmp_path).spool / "heartbeat.json").exists())
        assert set(states(run_batch(request, ListenerLog(stop))).values()) == {"done"}
    assert stopping
    assert len(lines(settings_in(tmp_path), "published.log")) == 3


def test_a_daw_that_found_the_crates_own_daemon_gets_its_stems(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    settings = settings_in(tmp_path)
    jobs = [job_for(tmp_path, f"slow item {seed}", seed=seed, priority="interactive") for seed in (50, 51, 52)]

    class Daw(ListenerLog):
        def ended(self, entry, *, fresh):
            super().ended(entry, fresh=fresh)
            assert living_daemon(settings.spool)
            for job in jobs:
                submit(settings.spool, job)

    listener = Daw()
    assert states(run_batch(request, listener)) == {"One.wav": "done"}
    assert [result_of(settings, job).state for job in jobs] == [State.DONE] * 3
    assert any("DAW" in note for note in listener.notes)


def test_two_runs_of_one_crate_do_not_meet(tmp_path):
    request = batch_in(tmp_path, "slow A.wav")
    begun, refused = threading.Event(), []

    def second():
        begun.wait(PATIENCE_S)
        try:
            run_batch(request)
        except DaemonError as error:
            refused.append(str(error))

    thread = threading.Thread(target=second)
    thread.start()

    def hold(view):
        begun.set()
        until(lambda: refused)

    run_batch(request, ListenerLog(hold))
    thread.join()
    assert len(refused) == 1 and refused[0].startswith("Another `tsbs-daw batch` is using ")


def test_several_workers_share_a_crate(tmp_path):
    request = batch_in(tmp_path, "held A.wav", "held B.wav")
    seen = []

    def update(progress):
        seen.append(len(progress.running))
        if seen[-1] == 2:
            let_go(settings_in(tmp_path), "held A", "held B")

    run_batch(request, ListenerLog(update), options=replace(QUICK, workers=2))
    assert max(seen) == 2


def test_a_crate_without_songs_is_wrong_use(tmp_path):
    (tmp_path / "crate").mkdir()
    (tmp_path / "crate" / "notes.txt").write_text("no song")
    with pytest.raises(UsageError, match="contains no songs"):
        run_batch(batch_in(tmp_path))
    with pytest.raises(UsageError, match="is not a folder"):
        run_batch(replace(batch_in(tmp_path), folder=tmp_path / "gone"))


def test_every_crate_has_an_out_folder_of_its_own(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    first = run_batch(request)
    other = replace(request, folder=request.folder.with_name("moved"))
    shutil.copytree(request.folder, other.folder)
    with pytest.raises(UsageError, match="Choose another --out"):
        run_batch(other)
    shutil.rmtree(request.folder)
    assert [song.sha256 for song in run_batch(other).songs] == [song.sha256 for song in first.songs]
    assert len(runs(tmp_path)) == 1, "a batch that was moved is the same batch"


def test_a_worker_that_cannot_start_ends_the_crate_with_its_reason(tmp_path):
    request = batch_in(tmp_path, "One.wav")
    with pytest.raises(DaemonError, match="cannot start"):
        run_batch(request, options=replace(QUICK, runner="no_such_module:run"))
    assert states(written(tmp_path)) == {"One.wav": "waiting"}
    assert states(run_batch(request)) == {"One.wav": "done"}


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": 1, "songs": {"One.wav": 3}}'])
def test_a_lost_memory_costs_time_and_nothing_else(tmp_path, damage):
    request = batch_in(tmp_path, "One.wav", "Two.wav")
    first = run_batch(request)
    (request.out / CACHE_FOLDER).write_bytes(damage)
    assert run_batch(request).songs == first.songs and len(runs(tmp_path)) == 2


def test_out_may_lie_in_the_crate_or_be_the_crate(tmp_path):
    for number, inside in enumerate((Path("crate/out"), Path("crate"))):
        request = replace(
            batch_in(tmp_path / str(number), "One.wav", "sub/Two.wav"), out=tmp_path / str(number) / inside
        )
        for _ in range(2):
            assert states(run_batch(request)) == {"One.wav": "done", "sub/Two.wav": "done"}
