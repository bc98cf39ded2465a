from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import signals

from tsbs_daw.audio.read import open_audio
from tsbs_daw.core import locks
from tsbs_daw.pipeline.stem_cache import RESIDUAL, StemCache, cache_key

STEMS = ("low", "high")


def fill(cache: StemCache, key: str, folder: Path, *, samples: int = 3000) -> np.ndarray:
    """Put stems of which each is a quarter of the mixture under `key`; returns the mixture."""
    path = signals.write_file(folder / f"{key}.wav", signals.noise(samples))
    with open_audio(path) as reader, cache.writing(key, STEMS, reader) as writer:
        mixture = reader.read(samples)
        writer.write(np.stack([mixture / 4, mixture / 4]), mixture)
    return mixture


def age(cache: StemCache, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(cache.folder / key, (then, then))


def test_what_was_written_is_found_with_what_the_stems_leave_out(tmp_path):
    cache = StemCache(tmp_path / "cache")
    mixture = fill(cache, "a", tmp_path)
    found = cache.find("a")
    ((stems, residual),) = found.blocks()
    np.testing.assert_allclose(stems["low"], mixture / 4, atol=1e-7)
    np.testing.assert_allclose(residual, mixture / 2, atol=1e-7)
    assert found.about.samples == 3000 and found.about.mixture_rms == pytest.approx(np.sqrt(np.mean(mixture**2)))


def test_with_the_residual_shared_the_stems_sum_to_the_mixture_and_only_rounding_is_left_out(tmp_path):
    cache = StemCache(tmp_path / "cache")
    mixture = fill(cache, "a", tmp_path)
    blocks = list(cache.find("a").blocks(share=True))
    total = np.concatenate([sum(stems.values()) for stems, _ in blocks], axis=-1)
    np.testing.assert_allclose(total, mixture, atol=1e-6)
    assert max(np.abs(residual).max() for _, residual in blocks) < 1e-6


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    cache = StemCache(tmp_path / "cache")
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    with open_audio(path) as reader, pytest.raises(ZeroDivisionError), cache.writing("a", STEMS, reader):
        raise ZeroDivisionError
    assert cache.find("a") is None and not any(cache.folder.iterdir())


def test_the_faster_of_two_writers_wins_and_the_other_uses_its_stems(tmp_path):
    cache = StemCache(tmp_path / "cache")
    fill(cache, "a", tmp_path)
    before = (cache.folder / "a" / f"{RESIDUAL}.wav").stat().st_mtime_ns
    fill(cache, "a", tmp_path)
    assert (cache.folder / "a" / f"{RESIDUAL}.wav").stat().st_mtime_ns == before
    assert [folder.name for folder in cache.folder.iterdir()] == ["a"]


def test_what_was_used_longest_ago_goes_first_and_what_may_be_in_use_stays(tmp_path):
    cache = StemCache(tmp_path / "cache", limit_bytes=1)
    roomy = StemCache(tmp_path / "cache")
    for key, seconds in (("old", 9000), ("older", 99000), ("fresh", 10)):
        fill(roomy, key, tmp_path)
        age(roomy, key, seconds)
    StemCache(tmp_path / "cache", limit_bytes=2 * 80_000).prune()
    assert {folder.name for folder in cache.folder.iterdir()} == {"old", "fresh"}
    cache.prune()
    assert {folder.name for folder in cache.folder.iterdir()} == {"fresh"}


def test_using_stems_makes_them_young(tmp_path):
    cache = StemCache(tmp_path / "cache", limit_bytes=1)
    fill(StemCache(tmp_path / "cache"), "a", tmp_path)
    age(cache, "a", 9000)
    assert cache.find("a")
    cache.prune()
    assert cache.find("a")


def test_the_key_depends_on_everything_that_decides_the_stems():
    keys = {cache_key(source="s", stage=stage, portion=portion) for stage in "ab" for portion in ([0, None], [0, 5])}
    assert len(keys) == 4
    assert cache_key(source="s", stage="a") == cache_key(stage="a", source="s")


def test_what_a_killed_run_had_begun_is_removed_at_once_and_what_is_being_written_is_not(tmp_path):
    cache = StemCache(tmp_path / "cache")
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tsbs_daw.audio.read import open_audio\n"
        "from tsbs_daw.pipeline.stem_cache import StemCache\n"
        "with open_audio(Path(sys.argv[1])) as source, StemCache(Path(sys.argv[2])).writing('a', ('x',), source):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "cache")], check=False)
    assert killed.returncode == -9
    (left,) = cache.folder.iterdir()
    assert left.name.startswith(".tmp-")
    cache.remove_abandoned()
    assert not left.exists()
    with open_audio(path) as source, cache.writing("b", ("x",), source):
        StemCache(tmp_path / "cache").remove_abandoned()
        (busy,) = cache.folder.iterdir()
        assert (busy / "x.wav").exists() or any(busy.iterdir())
    assert [folder.name for folder in cache.folder.iterdir()] == ["b"]


def test_a_folder_that_another_run_removes_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    cache, original = StemCache(tmp_path / "cache"), locks._lock
    path = signals.write_file(tmp_path / "song.wav", signals.noise(3000))

    def late(descriptor):
        monkeypatch.setattr(locks, "_lock", original)
        StemCache(tmp_path / "cache").remove_abandoned()
        original(descriptor)

    monkeypatch.setattr(locks, "_lock", late)
    with open_audio(path) as source, cache.writing("a", ("x",), source):
        pass
    assert [folder.name for folder in cache.folder.iterdir()] == ["a"]
    assert not (cache.folder / "b" / ".lock").exists()
