"""The page as its reader has it, in a real Chromium: with a pointer, with keys, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch.browser import browser
from harness.stage import wav_bytes
from timeouts import PATIENCE_S
from web.page_home import SENTENCE, Home, full_home
from web.serving import Served, served

from tsbs_daw.contracts.job import State

axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# What is wrong, in words that say where.
VIOLATIONS = """async () => (await axe.run(document, { resultTypes: ['violations'] })).violations
  .map((one) => `${one.id}: ${one.nodes.map((node) => node.target + ' ' + node.failureSummary).join('; ')}`)"""

SONG_S = 60.0
HEARD = (
    "() => [...document.querySelectorAll('audio')].filter((one) => !one.muted).map((one) => one.dataset.name).sort()"
)
# All play, none further than 60 ms from the others.
TOGETHER = """(count) => {
  const sounds = [...document.querySelectorAll('audio')];
  const times = sounds.map((sound) => sound.currentTime);
  return sounds.length === count && sounds.every((sound) => !sound.paused && sound.currentTime > 0.2)
    && Math.max(...times) - Math.min(...times) < 0.06;
}"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = full_home(tmp_path_factory.mktemp("page"), SONG_S)
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(home: Home) -> Iterator[Served]:
    with served(home.settings.home, "--out", str(home.root / "stems")) as found:
        yield found.sign_in()


@pytest.fixture
def opened(chromium, page: Served, home: Home) -> Iterator[Callable]:
    """A function that opens the page; at the end, nothing may have complained."""
    complaints: list[str] = []
    contexts = []

    def open_page(view: str = "queue", served_page: Served = page, **look: object):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **look})
        contexts.append(context)
        name, _, value = served_page.cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": served_page.url}])
        tab = context.new_page()
        tab.set_default_timeout(1000 * PATIENCE_S)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append("a dialog"))
        tab.on("request", lambda asked: asked.url.startswith(served_page.url) or complaints.append(asked.url))
        home.beat()
        tab.goto(f"{served_page.url}/#{view}")
        return tab

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def job(tab, song: str):
    return tab.locator("li.job", has=tab.locator(".title", has_text=song)).first


def test_the_link_opens_the_page_and_leaves_the_address_bar(chromium, page: Served, home: Home):
    from tsbs_daw.web.access import read_access

    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(read_access(home.settings.home).link())
    tab.wait_for_selector(".job.running")
    assert "code" not in tab.url and tab.evaluate("document.cookie") == "" and tab.evaluate("document.referrer") == ""
    context.close()


def test_the_queue_is_live(opened: Callable, home: Home):
    tab = opened()
    assert SENTENCE in job(tab, "cut").inner_text()
    home.run("Glass Houses", 0.6, "writing stems")
    tab.wait_for_function("() => document.querySelector('.job.running').textContent.includes('60 % · writing stems')")
    home.add("Newcomer <img src=x onerror=alert(1)>")
    tab.wait_for_function("() => document.querySelector('#live').textContent.includes('Newcomer <img')")
    home.end("Newcomer <img src=x onerror=alert(1)>", State.FAILED, error="No <b>sound</b>.")
    tab.wait_for_function("() => document.querySelector('#ended li').textContent.includes('No <b>sound</b>.')")


def test_by_keyboard_a_job_is_moved_and_cancelled(opened: Callable, home: Home):
    tab, waiting = opened(), home.spool.folder(home.jobs["Última Vez"].id)
    button = job(tab, "Última Vez").get_by_role("button", name="Run Última Vez first")
    button.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.getElementById('said').textContent === 'Moved to the front.'")
    assert (waiting / "move").read_text() == "first"
    home.store.move(home.jobs["Última Vez"].id, "first")
    tab.wait_for_function("() => document.querySelector('.job.queued').textContent.includes('Última')")
    tab.get_by_role("button", name="Cancel Última Vez").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.querySelector('#live').textContent.includes('Cancelling')")
    assert (waiting / "cancel").exists()


def test_a_song_is_dropped_and_one_that_is_too_large_is_said(opened: Callable, home: Home, tmp_path: Path):
    tab = opened()
    song = tmp_path / "dropped song.wav"
    song.write_bytes(wav_bytes(9))
    tab.wait_for_selector("#preset option", state="attached")
    tab.select_option("#preset", "karaoke")
    tab.set_input_files("#file", song)
    tab.wait_for_function("() => document.querySelector('#live').textContent.includes('dropped song')")
    (folder,) = (folder for folder in home.spool.inbox.iterdir() if folder.name.startswith("web-"))
    assert (folder / "source" / "dropped song.wav").read_bytes() == song.read_bytes()
    assert home.spool.read_request(folder).preset == "karaoke"


def test_stems_play_together_solo_compare_and_loop(opened: Callable):
    tab = opened()
    tab.get_by_role("link", name="Night Drive").click()
    tab.wait_for_selector(".mixer")
    tab.get_by_role("button", name="Play Night Drive").click()
    tab.wait_for_function(TOGETHER, arg=4)
    tab.get_by_role("button", name="Solo bass").click()
    tab.wait_for_function(HEARD, arg="bass")
    tab.keyboard.press("3")
    tab.keyboard.press("b")
    # Six files and the events at once: more than a browser has connections.
    tab.get_by_role("button", name="Mute drums loud").click()
    tab.wait_for_function(TOGETHER, arg=5)
    tab.wait_for_function(HEARD, arg="song")
    tab.keyboard.press("b")
    tab.wait_for_function(HEARD, arg="bass,drums,drums loud,other,vocals")
    tab.wait_for_function(TOGETHER, arg=6)
    tab.keyboard.press("[")
    tab.evaluate("window.times = 0; window.last = 0")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("]")
    # At once, because it is at the loop's end; then by itself.
    tab.wait_for_function(
        """() => { const at = document.querySelector('audio').currentTime;
        window.times += at < window.last - 2; window.last = at; return window.times >= 2; }"""
    )


def test_the_files_of_a_song_are_saved(opened: Callable, home: Home):
    tab = opened(f"song/{home.jobs['Night Drive'].id}")
    with tab.expect_download() as saved:
        tab.get_by_role("link", name="vocals.wav").click()
    original = home.root / "out" / "Night Drive" / "vocals.wav"
    assert Path(saved.value.path()).read_bytes() == original.read_bytes()
    assert saved.value.suggested_filename == "vocals.wav"


def test_a_batchs_catalogue_plays_as_from_its_folder(opened: Callable):
    tab = opened("batches")
    tab.get_by_role("link", name="My Crate").click()
    tab.get_by_role("button", name="Play First Song").first.click()
    tab.wait_for_function(TOGETHER, arg=4)


def test_a_page_left_open_over_a_restart_is_right_again(opened: Callable, tmp_path: Path):
    own = Home(tmp_path)
    own.beat()
    own.add("Before")
    with served(own.settings.home) as first:
        first.sign_in()
        tab = opened(served_page=first)
        tab.wait_for_selector("text=Before")
    tab.wait_for_function("() => document.getElementById('summary').textContent.startsWith('Not connected')")
    own.spool.remove_heartbeat()
    own.end("Before", State.CANCELLED)
    own.add("After")
    with served(own.settings.home, port=first.port):
        tab.wait_for_function("() => document.querySelector('#live').textContent.includes('After')")
        tab.wait_for_function("() => document.getElementById('summary').textContent.startsWith('No daemon is running')")
        assert "Before" in tab.locator("#ended").inner_text()
    own.close()
    tab.close()
    opened.complaints.clear()  # that the server was not there, the console says, too


LOOKS = {
    "desk": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
    "dark phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
}
SHOWN = {"queue": ".job.running", "folders": ".place", "batches": ".place", "models": ".place", "song": ".mixer"}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(opened: Callable, home: Home, look: str):
    tab = opened(**LOOKS[look])
    for view, there in SHOWN.items():
        place = f"song/{home.jobs['Night Drive'].id}" if view == "song" else view
        tab.evaluate("(place) => { location.hash = place; }", place)
        tab.wait_for_selector(f"main section[data-view={view}] {there}")
        if view == "song":
            tab.get_by_role("button", name="Loop (L)").click()
        tab.evaluate(AXE)
        assert tab.evaluate(VIOLATIONS) == [], view
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
