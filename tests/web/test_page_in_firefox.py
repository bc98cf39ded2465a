"""The page in a real Firefox: it opens by its link, is accessible, and its player keeps six files together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.firefox import firefox
from web.page_home import Home, full_home
from web.serving import served
from web.test_page_in_browser import AXE, SONG_S

from tsbs_daw.web.access import read_access

VIOLATIONS = """
  document.title = 'checking';
  axe.run(document, { resultTypes: ['violations'] })
    .then(({ violations }) => violations.map((one) => `${one.id} ${one.nodes.map((node) => node.target)}`))
    .catch((error) => [String(error)])
    .then((found) => { window.found = found; document.title = 'axe is done'; });
"""
SOUNDS = "const all = [...document.querySelectorAll('audio')], at = all.map(a => a.currentTime);"
TOGETHER = (
    f"{SOUNDS} return all.length === %d && all.every(a => !a.paused && a.currentTime > 0)"
    " && Math.max(...at) - Math.min(...at) < 0.1;"
)
HEARD = "return [...document.querySelectorAll('audio')].filter(a => !a.muted).map(a => a.dataset.name).sort();"
CLICK = "[...document.querySelectorAll('button')].find(b => b.getAttribute('aria-label') === %r).click();"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = full_home(tmp_path, SONG_S)
    yield made
    made.close()


def test_firefox_shows_the_queue_and_plays_a_song(home: Home, tmp_path: Path):
    (tmp_path / "profile").mkdir()
    job = home.jobs["Night Drive"].id
    with served(home.settings.home) as page, firefox(tmp_path / "profile") as driven:
        home.beat()
        driven.open(read_access(home.settings.home).link())
        driven.wait_for("return document.querySelector('.job.running') !== null;")
        assert driven.run("return location.href") == f"{page.url}/"
        home.run("Glass Houses", 0.77)
        driven.wait_for("return document.querySelector('.job.running').textContent.includes('77 %');")
        for view, there in (("queue", ".job"), ("models", ".place"), (f"song/{job}", ".mixer")):
            driven.run(f"location.hash = '{view}';")
            driven.wait_for(f"return document.querySelector('main > section:not([hidden]) {there}') !== null;")
            driven.run_in_page(AXE + VIOLATIONS)
            driven.wait_for("return document.title.startsWith('axe ');")
            assert driven.run_in_page("return window.found;") == [], view
        driven.run(CLICK % "Play Night Drive")
        driven.wait_for(TOGETHER % 4)
        driven.run(CLICK % "Mute drums loud")
        driven.run(CLICK % "Hear the song itself instead of its stems (B)")
        driven.wait_for(TOGETHER % 6)
        assert driven.run(HEARD) == ["song"]
