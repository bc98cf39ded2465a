"""Trouble that comes and goes: of output, cache and source. It is told truly, and tried again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import signals
from harness.studio import Studio

from tsbs_daw.audio.decoder import DecoderProcess
from tsbs_daw.audio.read import open_audio
from tsbs_daw.core import files
from tsbs_daw.core.errors import (
    DecoderKilled,
    EffectError,
    JobCancelled,
    OutputError,
    OutputUnavailable,
    UnreadableAudio,
)
from tsbs_daw.core.files import write_error
from tsbs_daw.pipeline import separate
from tsbs_daw.pipeline.publish import StagedFolder
from tsbs_daw.pipeline.stem_cache import StemCache, StemWriter

NAMES = ("EIO", "ENOENT", "EACCES", "EROFS", "ESTALE")


@pytest.mark.parametrize("name", NAMES)
def test_a_write_that_a_share_refuses_is_tried_again(tmp_path, name):
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    translated = write_error(tmp_path / "x.wav", error)
    assert translated.retryable and isinstance(translated, OutputUnavailable)
    staged = StagedFolder(tmp_path, "song", preset="none", identity="i", job="job", fence=1)
    with pytest.raises(OutputUnavailable, match=r"cannot be written to"), staged:
        raise error


def test_what_can_never_be_written_is_not_tried_again(tmp_path):
    assert not write_error(tmp_path / "x.wav", OSError(errno.ENAMETOOLONG, "File name too long")).retryable


def test_a_cache_that_is_removed_while_it_is_written_is_told_and_tried_again(tmp_path):
    cache = StemCache(tmp_path / "cache")
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    removed = pytest.raises(OutputUnavailable, match="was removed while it was written")
    with open_audio(path) as reader, removed, cache.writing("a", ("low",), reader) as writer:
        block = reader.read(3000)
        writer.write(block[None] / 4, block)
        shutil.rmtree(cache.folder)


def test_a_cache_that_is_removed_before_it_is_read_is_told_and_tried_again(tmp_path):
    cache = StemCache(tmp_path / "cache")
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    with open_audio(path) as reader, cache.writing("a", ("low",), reader) as writer:
        block = reader.read(3000)
        writer.write(block[None] / 4, block)
    found = cache.find("a")
    shutil.rmtree(cache.folder)
    with pytest.raises(OutputUnavailable, match="were removed before they were read"):
        list(found.blocks())


def test_a_cache_folder_that_cannot_be_made_is_told_and_tried_again(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "stems").symlink_to(tmp_path / "gone" / "away")
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    cache, refused = StemCache(tmp_path / "cache"), pytest.raises(OutputError, match="Cannot write")
    with open_audio(path) as reader, refused, cache.writing("a", ("low",), reader):
        pass


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/b", "a\\b", "residual"])
def test_the_cache_takes_no_stem_that_leads_elsewhere(tmp_path, name):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    with open_audio(path) as reader, pytest.raises(OutputError, match="cannot be named"):
        StemWriter(tmp_path, (name, "other"), reader)
    assert [entry.name for entry in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "retryable"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
def test_a_decoder_that_the_system_kills_is_not_the_files_fault(tmp_path, monkeypatch, number, retryable):
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    original = DecoderProcess.receive

    def killed(self):
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.read()
        return original(self)

    monkeypatch.setattr(DecoderProcess, "receive", killed)
    with pytest.raises(UnreadableAudio) as refusal:
        open_audio(path)
    assert refusal.value.retryable is retryable
    assert isinstance(refusal.value, DecoderKilled) is retryable
    assert ("decoder was killed" in str(refusal.value)) is retryable


class Killer:
    """Kills decoders as the system does when memory is short. Args: kills: how many of them"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kills: int, after_messages: int):
        self.kills, self.after_messages, self.decoders = kills, after_messages, 0
        start, receive = DecoderProcess.__init__, DecoderProcess.receive

        def counted(process: DecoderProcess, *values: object, **options: object) -> None:
            start(process, *values, **options)
            self.decoders += 1
            process.received = 0

        def killed(process: DecoderProcess) -> tuple[bytes, bytearray]:
            process.received += 1
            if self.decoders <= self.kills and process.received > self.after_messages:
                process.process.kill()
                process.process.wait()
                process.process.stdout.read()
            return receive(process)

        monkeypatch.setattr(DecoderProcess, "__init__", counted)
        monkeypatch.setattr(DecoderProcess, "receive", killed)
        monkeypatch.setattr(separate, "DECODER_AGAIN_S", 0.0)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("after_messages", [0, 1])
def test_a_decoder_that_is_killed_once_costs_nothing_but_time(tmp_path, monkeypatch, after_messages):
    studio = Studio(tmp_path)
    song = studio.song(duration_s=4.0)
    killer = Killer(monkeypatch, 1, after_messages)
    assert studio.run(song).stems
    assert killer.decoders == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("after_messages", [0, 1])
def test_a_decoder_that_is_killed_twice_is_the_songs_fault(tmp_path, monkeypatch, after_messages):
    studio = Studio(tmp_path)
    song = studio.song(duration_s=4.0)
    killer = Killer(monkeypatch, 99, after_messages)
    with pytest.raises(UnreadableAudio, match=r"'.*\.wav': the decoder was killed.*second try") as refusal:
        studio.run(song)
    assert not refusal.value.retryable
    assert killer.decoders == 2
    assert not any((studio.settings.cache / "stems").glob("*"))


def test_a_job_that_waits_for_memory_can_be_cancelled(tmp_path, monkeypatch):
    studio = Studio(tmp_path)
    song = studio.song()
    killer = Killer(monkeypatch, 99, 0)
    monkeypatch.setattr(separate, "DECODER_AGAIN_S", 1e9)
    with pytest.raises(JobCancelled):
        studio.run(song, cancelled=lambda: killer.decoders > 0)


@pytest.mark.skipif(os.name == "nt", reason="mount points")
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_made_below_the_mount_point_of_a_share_that_is_not_mounted(tmp_path, monkeypatch, exists):
    monkeypatch.setattr(files, "MOUNTS_BELOW", (str(tmp_path / "mnt"),))
    share = tmp_path / "mnt" / "nas"
    share.mkdir(parents=True)
    if not exists:
        share.rmdir()
    staged = StagedFolder(share / "stems" / "Album", "song", preset="none", identity="i", job="job", fence=1)
    with pytest.raises(OutputUnavailable, match=r"is not mounted at '.*nas'; connect it"), staged:
        pass
    assert not list(share.glob("*"))
    (share / "stems").mkdir(parents=True)
    with staged:
        assert staged.folder.is_dir()


def test_the_systems_table_names_mount_points(tmp_path):
    table, share = tmp_path / "fstab", tmp_path / "share"
    table.write_text(f"# comment /x\nnas:/music {share} nfs defaults 0 0\n")
    share.mkdir()
    (share / "left over").touch()
    assert files.unmounted(share / "out", table) == share
    assert files.unmounted(share, table) == share
    assert files.unmounted(tmp_path / "elsewhere" / "out", table) is None
    assert files.unmounted(share / "out", tmp_path / "no table") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_as_an_impulse_response_is_refused_without_waiting(tmp_path):
    studio, response = Studio(tmp_path), tmp_path / "response.wav"
    os.mkfifo(response)
    preset = studio.preset(
        "description: x\noutputs:\n  - name: out\n    from: [vocals]\n    chain:\n"
        f"      - Convolution: {{impulse_response_filename: {response}}}\n"
    )
    with pytest.raises(EffectError, match="Cannot read the impulse response"):
        studio.run(studio.song(), preset=preset)
    assert not list(Path(studio.out).glob("*")) if studio.out.exists() else True
