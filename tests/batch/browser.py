"""A real Chromium without a screen, driven by Playwright. Where either is missing, the test is skipped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import pytest
from timeouts import PATIENCE_S

from tsbs_daw.contracts.catalogue import SongEntry

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage")  # root in a container, which has little shared memory


@contextlib.contextmanager
def browser() -> Iterator:
    """Yields: playwright's Browser"""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, headless=True, args=FLAGS, timeout=1000 * PATIENCE_S)
        try:
            yield chromium
        finally:
            chromium.close()


def run_music(page: Any, expression: str, argument: object = None) -> Any:
    """The value of an expression in the scope of the page's `music.js`, with `argument` as its `given`.

    Args:
        page: any page of a browser
        expression: JavaScript
        argument: a value that JSON can hold
    """
    music = (files("tsbs_daw.batch") / "page_parts" / "music.js").read_text(encoding="utf-8")
    return page.evaluate(f"(given) => {{ 'use strict'; {music}\n return {expression}; }}", argument)


def matching_songs(page: Any, songs: Sequence[SongEntry], percent: float = 6.0) -> dict[str, list[str]]:
    """For every song, by source: the sources of those that `music.js` finds to go with it, the closest first."""
    rows = [
        {
            "source": song.source,
            "state": song.state,
            "tempo": {"bpm": song.analysis.tempo.bpm} if song.analysis else None,
            "key": {"camelot": song.analysis.key.camelot} if song.analysis and song.analysis.key else None,
        }
        for song in songs
    ]
    script = """Object.fromEntries(given.songs.map((song) =>
      [song.source, matches(song, given.songs, given.percent).map((found) => found.song.source)]))"""
    return run_music(page, script, {"songs": rows, "percent": percent})
