"""What Firefox needs done otherwise than Chromium, see `test_page_in_browser`: keeping stems together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.firefox import Firefox, firefox
from batch.page_crates import catalogue, sounding

from tsbs_daw.batch.page import write_page

SOUNDS = "const all = [...document.querySelectorAll('audio')], at = all.map(a => a.currentTime);"
PLAYING = f"{SOUNDS} return all.length === 4 && all.every(a => !a.paused && a.currentTime > 0 && !a.muted);"
# Less than what the one is put off by, and more than its clocks' own unevenness on a busy machine.
TOGETHER = f"{SOUNDS} return all.every(a => !a.paused) && Math.max(...at) - Math.min(...at) < 0.1;"
# Measured in the page: what the driver asks for later, the page may have mended before it is asked.
PUT_OFF = """
  window.speeds = 0;
  const all = [...document.querySelectorAll('audio')];
  for (const one of all) one.addEventListener('ratechange', () => window.speeds++);
  const bass = all.find(one => one.dataset.name === 'bass');
  bass.pause();
  const behind = setInterval(() => {
    if (Math.max(...all.map(one => one.currentTime)) - bass.currentTime < 0.4) return;
    clearInterval(behind);
    bass.play();
    window.off = true;
  }, 20);
"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Firefox]:
    song = sounding(tmp_path, "song", "Song", duration_s=120.0)
    write_page(catalogue(song), tmp_path)
    (tmp_path / "profile").mkdir()
    with firefox(tmp_path / "profile") as driven:
        driven.open(tmp_path / "catalogue.html")
        yield driven


def test_a_stem_that_falls_behind_is_waited_for_at_its_own_speed(page: Firefox):
    page.run("document.querySelector('.entry .play').click();")
    page.wait_for(PLAYING)
    page.wait_for(TOGETHER)
    page.run(PUT_OFF)
    page.wait_for("return window.off")
    page.wait_for(TOGETHER)
    assert page.run("return window.speeds") == 0, "its clocks lie after a change of speed"
