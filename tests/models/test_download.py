"""Downloads from a real server on this machine that cuts, changes and misbehaves."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from file_server import serving
from filelock import FileLock

from tsbs_daw.core.errors import DownloadError, NoSpaceLeft
from tsbs_daw.models.pull import download

CONTENT = random.Random(1).randbytes(700_001)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def fetch(url: str, path: Path, **options) -> bytes:
    return download(url, path, pause_s=0, **options).read_bytes()


def test_a_file_arrives_whole_and_leaves_no_parts(tmp_path):
    seen = []
    with serving(CONTENT) as server:
        assert fetch(server.url, tmp_path / "m.ckpt", progress=lambda *at: seen.append(at)) == CONTENT
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert not list(tmp_path.glob("*.part*"))


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path):
    with serving(CONTENT, cut_after=[300_000, 200_000]) as server:
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT
        assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_many_cuts_are_fine_while_each_try_brings_something(tmp_path):
    with serving(CONTENT, cut_after=[50_000] * 12) as server:
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT
        assert len(server.requests) == 13


def test_a_server_that_brings_nothing_is_given_up_and_the_part_is_kept(tmp_path):
    with serving(CONTENT, cut_after=[400_000, 0, 0, 0, 0]) as server:
        with pytest.raises(DownloadError, match="Rerun the command to resume after 400,000 bytes"):
            fetch(server.url, tmp_path / "m.ckpt")
        assert not (tmp_path / "m.ckpt").exists()
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT
        assert server.requests[-1]["Range"] == "bytes=400000-"


def test_a_file_that_changed_in_between_starts_again(tmp_path):
    other = random.Random(2).randbytes(600_000)
    with serving(CONTENT, cut_after=[400_000, 0, 0, 0, 0]) as server:
        with pytest.raises(DownloadError):
            fetch(server.url, tmp_path / "m.ckpt")
        server.content = other
        assert fetch(server.url, tmp_path / "m.ckpt") == other


def test_a_server_without_ranges_starts_again(tmp_path):
    with serving(CONTENT, cut_after=[400_000], ranges=False) as server:
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT


def test_without_a_mark_of_the_version_nothing_is_glued_together(tmp_path):
    with serving(CONTENT, cut_after=[400_000], marks=False) as server:
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT
        assert all("Range" not in request for request in server.requests)


def test_a_part_of_another_address_is_not_used(tmp_path):
    cut = [400_000, 0, 0, 0, 0]
    with serving(random.Random(3).randbytes(500_000), cut_after=cut) as first, pytest.raises(DownloadError):
        fetch(first.url, tmp_path / "m.ckpt")
    with serving(CONTENT) as second:
        assert fetch(second.url, tmp_path / "m.ckpt") == CONTENT
        assert "Range" not in second.requests[0]


def test_a_part_that_is_already_whole_is_only_renamed(tmp_path):
    with serving(CONTENT, cut_after=[400_000, 0, 0, 0, 0]) as server:
        with pytest.raises(DownloadError):
            fetch(server.url, tmp_path / "m.ckpt")
        (tmp_path / "m.ckpt.part").write_bytes(CONTENT)
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT


def test_a_part_longer_than_the_file_starts_again(tmp_path):
    with serving(CONTENT, cut_after=[400_000, 0, 0, 0, 0]) as server:
        with pytest.raises(DownloadError):
            fetch(server.url, tmp_path / "m.ckpt")
        (tmp_path / "m.ckpt.part").write_bytes(CONTENT + b"too much")
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT


def test_a_damaged_note_starts_again(tmp_path):
    with serving(CONTENT, cut_after=[400_000, 0, 0, 0, 0]) as server:
        with pytest.raises(DownloadError):
            fetch(server.url, tmp_path / "m.ckpt")
        (tmp_path / "m.ckpt.part.json").write_text("{")
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT


def test_a_missing_file_is_said_at_once(tmp_path):
    with serving(CONTENT, status=404) as server:
        with pytest.raises(DownloadError, match=": 404 "):
            fetch(server.url, tmp_path / "m.ckpt")
        assert len(server.requests) == 1


def test_a_failing_server_is_tried_again(tmp_path):
    with serving(CONTENT, status=503) as server:
        with pytest.raises(DownloadError, match="503"):
            fetch(server.url, tmp_path / "m.ckpt")
        assert len(server.requests) == 4


def test_nobody_listening_is_a_download_error(tmp_path):
    with serving(CONTENT) as server:
        url = server.url
    with pytest.raises(DownloadError, match="Cannot download"):
        fetch(url, tmp_path / "m.ckpt")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "model.ckpt"])
def test_only_web_addresses_are_fetched(tmp_path, url):
    with pytest.raises(DownloadError, match="not a web address"):
        fetch(url, tmp_path / "m.ckpt")


def test_a_redirect_to_a_file_of_this_machine_is_not_followed(tmp_path):
    with serving(b"", status=302, location="file:///etc/passwd") as server, pytest.raises(DownloadError):
        fetch(server.url, tmp_path / "m.ckpt")


def test_a_redirect_is_followed(tmp_path):
    with serving(CONTENT) as target, serving(b"", status=302, location=target.url) as server:
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT


def test_an_absurd_length_is_refused_before_anything_is_written(tmp_path):
    with serving(CONTENT, claimed_length=1 << 50) as server, pytest.raises(DownloadError, match="more than any model"):
        fetch(server.url, tmp_path / "m.ckpt")
    assert not (tmp_path / "m.ckpt.part").exists()


def test_a_server_that_does_not_say_its_length_is_stopped_at_the_limit(tmp_path):
    with serving(CONTENT, say_length=False) as server, pytest.raises(DownloadError, match="more than any model"):
        fetch(server.url, tmp_path / "m.ckpt", largest_bytes=500_000)


def test_a_full_disk_is_said_before_the_download(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with serving(CONTENT) as server, pytest.raises(NoSpaceLeft, match="1,000 free"):
        fetch(server.url, tmp_path / "m.ckpt")


def test_a_disk_that_fills_up_on_the_way_is_no_space_left_and_keeps_the_part(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(CONTENT, cut_after=[300_000]) as server:
        with monkeypatch.context() as patched, pytest.raises(NoSpaceLeft, match="Free some space"):
            patched.setattr(os, "fsync", full)
            fetch(server.url, tmp_path / "m.ckpt")
        assert fetch(server.url, tmp_path / "m.ckpt") == CONTENT
        assert server.requests[-1]["Range"] == "bytes=300000-"


def test_two_downloads_of_one_file_do_not_meet(tmp_path):
    with FileLock(tmp_path / "m.ckpt.lock"), pytest.raises(DownloadError, match="already being downloaded"):
        fetch("http://127.0.0.1:9/x", tmp_path / "m.ckpt")
