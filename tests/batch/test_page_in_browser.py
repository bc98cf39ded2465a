"""The page as its reader has it: opened from a file, in a real browser, with a pointer and with keys."""

from __future__ import annotations

import pytest
from batch.browser import browser
from batch.page_crates import HOSTILE, analysis, catalogue, entry, mixed_crate, sounding
from timeouts import PATIENCE_S

from tsbs_daw.batch.page import write_page

LONG_S = 120.0

# Elements that play, none further than 60 ms from the others: they started together, or were brought together. What
# plays without a sound card is off by more, for a moment, on a machine that is busy.
TOGETHER = """(count) => {
  const sounds = [...document.querySelectorAll('audio')];
  const times = sounds.map((sound) => sound.currentTime);
  return sounds.length === count && sounds.every((sound) => !sound.paused && sound.currentTime > 0.2)
    && Math.max(...times) - Math.min(...times) < 0.06;
}"""

# How many canvases are drawn; the others give their memory back.
DRAWN = "() => [...document.querySelectorAll('canvas')].filter((one) => one.width > 0).length"

# From now on, note where elements come to when they are moved: they stand still there, until all can play on.
NOTE_PLACES = """() => {
  window.places = [];
  document.addEventListener('seeked', (event) => window.places.push(event.target.currentTime), true);
}"""

# Songs of the mixed crate that go with each other, and from what tolerance of the tempo on, in percent.
FITS = {
    "First Song": {HOSTILE: 0, "Half": 1, "Keyless": 1, "Émile": 6},
    "Half": {HOSTILE: 1, "First Song": 1, "Keyless": 6},
    "Far": {"Keyless": 30},
    "Keyless": {HOSTILE: 1, "First Song": 1, "Half": 6, "Émile": 6, "Far": 30},
    "Beatless": {},
}

HEARD = """(names) => JSON.stringify([...document.querySelectorAll('audio')].filter((sound) => !sound.muted)
  .map((sound) => sound.dataset.name).sort()) === JSON.stringify(names)"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def crate(tmp_path_factory):
    out = tmp_path_factory.mktemp("crate")
    made = mixed_crate(out)
    write_page(made, out)
    return out, made


@pytest.fixture(scope="module")
def long_crate(tmp_path_factory):
    """Its first song plays for longer than a test takes."""
    out = tmp_path_factory.mktemp("long crate")
    write_page(catalogue(sounding(out, "1", "First Song", duration_s=LONG_S), entry("Second"), entry("Émile")), out)
    return out


@pytest.fixture
def opened(chromium):
    """A function that opens a page; at the end, nothing may have complained or asked for anything outside."""
    complaints, context = [], chromium.new_context(viewport={"width": 1300, "height": 900}, offline=True)

    def open_page(out):
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        inside = out.as_uri() + "/"
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append("a dialog"))
        page.on("request", lambda asked: asked.url.startswith(inside) or complaints.append(asked.url))
        page.goto(inside + "catalogue.html")
        return page

    yield open_page
    context.close()
    assert complaints == []


@pytest.fixture
def page(opened, crate):
    return opened(crate[0])


@pytest.fixture
def long_page(opened, long_crate):
    return opened(long_crate)


def titles(page) -> list[str]:
    """Of the songs that can be seen, from top to bottom."""
    script = "rows => rows.filter(row => row.checkVisibility()).map(row => row.querySelector('.title').textContent)"
    return page.eval_on_selector_all(".entry", script)


def song(page, title: str):
    """A song's entry in the table."""
    return page.locator(".entry").filter(has=page.locator(f".title:text-is({title!r})"))


def words(found) -> str:
    """What a part of an entry says; its `inner_text` is empty as long as the entry is out of sight."""
    return found.text_content()


def sounds(page, what: str) -> dict:
    """A property of each element that plays, by its file's name."""
    return page.eval_on_selector_all("audio", f"all => Object.fromEntries(all.map(a => [a.dataset.name, a.{what}]))")


def test_the_page_opens_with_every_song_and_its_figures(page):
    assert len(titles(page)) == 10
    first = words(song(page, "First Song"))
    assert all(figure in first for figure in ("Somebody", "120.0", "8A", "A minor", "−12.0", "−100", "0:20"))
    assert page.title() == "Test crate – catalogue"
    assert page.locator("#summary").inner_text() == "7 of 10 songs ready · 1:54 · 1 waiting · 1 failed · 1 duplicate"


def test_the_whole_crate_and_each_song_can_be_opened_from_the_page(opened, tmp_path):
    made = {"sessions": ("one/One.RPP",), "loops": 2, "loops_folder": "one/loops", "stem_mp4": "one/One.stem.mp4"}
    crate = catalogue(entry("One", folder="one", gain_db=-3.0, **made))
    (tmp_path / crate.session).touch()
    write_page(crate, tmp_path)
    page = opened(tmp_path)
    links = "all => Object.fromEntries(all.map(a => [a.textContent, a.href]))"
    inside = tmp_path.as_uri() + "/"
    assert page.eval_on_selector_all("#whole a", links) == {crate.session: inside + crate.session.replace(" ", "%20")}
    page.locator(".title").click()
    assert page.eval_on_selector_all(".panel a", links) == {
        "Folder": inside + "one/",
        "One.RPP": inside + "one/One.RPP",
        "2 loops": inside + "one/loops/",
        "One.stem.mp4": inside + "one/One.stem.mp4",
    }
    assert "true peak −1.0 dB, before the gain" in words(page.locator(".panel"))


def test_the_waveforms_of_the_stems_are_drawn_in_their_colours(page):
    script = """canvas => {
      const {width, height} = canvas;
      const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
      const near = (y, r, g, b) => {
        for (let x = 0; x < width; x++) {
          const at = 4 * (y * width + x);
          const far = Math.hypot(pixels[at] - r, pixels[at + 1] - g, pixels[at + 2] - b);
          if (pixels[at + 3] > 250 && far < 12) return true;
        }
        return false;
      };
      return [near(Math.round(height / 8), 0xec, 0x40, 0x7a), near(Math.round(height * 3 / 8), 0xff, 0xa7, 0x26)];
    }"""
    canvas = song(page, "First Song").locator(".picture canvas")
    page.wait_for_function("canvas => canvas.width > 0", arg=canvas.element_handle())
    assert canvas.evaluate(script) == [True, True]


def test_all_stems_play_together(long_page):
    page = long_page
    song(page, "First Song").locator(".play").click()
    page.wait_for_function(TOGETHER, arg=4)
    page.wait_for_function(HEARD, arg=["bass", "drums", "other", "vocals"])
    assert page.locator("#dock").is_visible()
    song(page, "First Song").locator(".play").click()
    assert all(sounds(page, "paused").values())


def test_a_stem_that_falls_behind_is_brought_back(long_page):
    page = long_page
    song(page, "First Song").locator(".play").click()
    page.wait_for_function(TOGETHER, arg=4)
    # Looked at in the same breath: later, it may have been brought back.
    off = f"() => {{ document.querySelector('audio[data-name=bass]').currentTime += 1.5; return ({TOGETHER})(4); }}"
    assert page.evaluate(off) is False
    page.wait_for_function(TOGETHER, arg=4)


def test_solo_and_mute_decide_what_is_heard(long_page):
    page = long_page
    found = song(page, "First Song")
    found.locator(".play").click()
    page.wait_for_function(TOGETHER, arg=4)

    def heard(*names):
        # In the end: what is being brought back to the others is not heard for a moment.
        page.wait_for_function(HEARD, arg=sorted(names))

    found.get_by_role("button", name="Mute vocals").click()
    heard("drums", "bass", "other")
    found.get_by_role("button", name="Solo bass").click()
    heard("bass")
    found.get_by_role("button", name="Solo vocals").click()
    heard("bass", "vocals")
    assert found.get_by_role("button", name="Solo bass").get_attribute("aria-pressed") == "true"
    for name in ("bass", "vocals"):
        found.get_by_role("button", name=f"Solo {name}").click()
    heard("drums", "bass", "other")
    # A processed output is quiet until somebody wants it, and then joins at the same place.
    found.get_by_role("button", name="Mute drums loud").click()
    page.wait_for_function(TOGETHER, arg=5)
    heard("drums", "bass", "other", "drums loud")


def test_a_click_in_the_waveform_plays_from_there(long_page):
    page, found = long_page, song(long_page, "First Song")
    page.evaluate(NOTE_PLACES)

    def plays_from(place_s):
        page.wait_for_function("() => window.places.length >= 4")
        assert page.evaluate("window.places.splice(0, 4)") == pytest.approx([place_s] * 4, abs=0.01 * LONG_S)
        page.wait_for_function(f"() => document.querySelector('audio').currentTime > {place_s + 0.1}")

    box = found.locator(".picture").bounding_box()
    found.locator(".picture").click(position={"x": box["width"] / 2, "y": 20})
    plays_from(LONG_S / 2)
    seek = found.locator(".seek")
    seek.click(position={"x": seek.bounding_box()["width"] / 10, "y": 60})
    plays_from(LONG_S / 10)
    seek.focus()
    page.keyboard.press("End")
    page.wait_for_function("() => window.places.length >= 4")
    assert min(page.evaluate("window.places.splice(0, 4)")) > LONG_S - 1, "it began again"
    page.wait_for_function("() => [...document.querySelectorAll('audio')].every(audio => audio.paused)")
    page.keyboard.press("End")
    page.wait_for_function("seek => seek.getAttribute('aria-valuetext') === '2:00 of 2:00'", arg=seek.element_handle())
    page.keyboard.press("Home")
    assert seek.get_attribute("aria-valuetext") == "0:00 of 2:00"


def test_text_filters_by_title_artist_key_and_file_without_accents(page):
    search = page.get_by_label("Search")
    for text, expected in (("emile", ["Émile"]), ("SOMEB hal", ["Half"]), ("cut.mp3", ["Cut"]), ("nobody", [])):
        search.fill(text)
        assert titles(page) == expected
    assert page.get_by_text("No songs match").is_visible()
    page.locator("#clear-too").click()
    assert len(titles(page)) == 10


def test_tempo_key_vocals_and_state_filter(page):
    page.get_by_label("Slowest tempo").fill("119")
    page.get_by_label("Fastest tempo").fill("123")
    assert titles(page) == ["First Song", HOSTILE, "Émile", "Keyless"]
    page.locator("#key").select_option("8A")
    assert titles(page) == ["First Song", HOSTILE]
    page.get_by_label("and keys that blend").check()
    assert titles(page) == ["First Song", HOSTILE, "Émile"]
    page.locator("#vocals").select_option("without")
    assert titles(page) == ["Émile"]
    assert page.locator("#count").inner_text() == "1 of 10 songs"
    page.locator("#clear").click()
    page.get_by_label("Failed 1").check(force=True)
    assert titles(page) == ["Cut"]
    assert "It is cut short; copy it again." in words(song(page, "Cut"))


@pytest.mark.parametrize(
    ("column", "up", "last"),
    [
        ("tempo", ["Half", "Keyless", "First Song"], "Later"),
        ("key", ["Far", "First Song", HOSTILE], "Later"),
        ("loudness", ["Far", "First Song", HOSTILE], "Later"),
        ("residual", ["First Song", HOSTILE, "Far"], "Later"),
        ("length", [HOSTILE, "Far", "First Song"], "Later"),
        ("song", [HOSTILE, "Beatless", "Cut"], "Twin"),
    ],
)
def test_every_column_sorts_up_and_down_and_what_is_unknown_comes_last(page, column, up, last):
    head = page.locator(f"[data-column={column}]")
    before = titles(page)
    head.get_by_role("button").click()
    assert titles(page)[:3] == up and titles(page)[-1] == last
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert titles(page)[0] not in up[:1]
    assert column == "song" or titles(page)[-1] == last
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert titles(page) == before


@pytest.mark.parametrize("percent", [0, 1, 6, 30])
def test_the_songs_that_fit_the_chosen_one_are_marked(page, percent):
    page.get_by_label("Songs fit if").fill(str(percent))
    for chosen in ("First Song", "Half", "Far", "Keyless", "Beatless"):
        song(page, chosen).locator("button.name").first.click()
        marked = page.locator(".entry.fits .row .title").all_text_contents()
        expected = {title for title, least in FITS[chosen].items() if percent >= least}
        assert set(marked) == expected
    song(page, "First Song").locator("button.name").first.click()
    if percent == 6:
        assert words(song(page, "Half").locator(".fit")) == "half time, −0.8 %, relative key"
        page.get_by_role("button", name="Show only these").click()
        assert titles(page) == ["First Song", HOSTILE, "Émile", "Half", "Keyless"]
        page.keyboard.press("Escape")
        assert len(titles(page)) == 10


def test_nothing_is_cut_off_on_a_phone(opened, tmp_path):
    found = analysis(220.0, "12A", doubtful=True)
    write_page(catalogue(entry("One", analysis=found, warnings=("It is.",)), entry("Two", artist="")), tmp_path)
    page = opened(tmp_path)
    page.set_viewport_size({"width": 360, "height": 800})
    over = "all => all.map(one => one.getBoundingClientRect().right - one.closest('%s').getBoundingClientRect().right)"
    assert max(page.eval_on_selector_all(".chip", over % ".entry")) <= 0
    assert max(page.eval_on_selector_all("#filters input, #filters select", over % "form")) <= 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_song_of_no_artist_shows_its_file(page):
    assert "/music/cut.mp3" in words(song(page, "Cut").locator(".under"))
    assert "/music/" not in words(song(page, "Far").locator(".under"))


def test_doubtful_figures_are_marked_and_explained(page):
    half = song(page, "Half")
    assert half.locator(".row .doubtful").count() == 2
    assert "(doubtful)" in half.locator(".row .tempo").text_content()
    half.locator("button.name").click()
    assert "it may be 30.2 or 121.0 BPM" in words(half.locator(".remarks"))
    assert song(page, "First Song").locator(".doubtful").count() == 0


def test_sections_and_silences_are_on_the_time_axis(page):
    found = song(page, "First Song")
    found.locator("button.name").first.click()
    assert found.locator(".section").all_text_contents() == ["A", "B"]
    assert found.locator(".section").first.evaluate("part => part.style.width") == "40%"
    assert found.locator(".silence").first.evaluate("part => [part.style.left, part.style.width]") == ["0%", "25%"]
    assert "from 0:05" in words(found.locator(".lane-head").first)


def test_hostile_names_are_words_and_nothing_more(page):
    found = song(page, HOSTILE)
    found.locator(".play").click()
    page.wait_for_function("() => document.querySelectorAll('audio').length === 4")
    page.wait_for_function(
        "() => [...document.querySelectorAll('audio')].every(a => (a.readyState > 2 || a.ended) && !a.error)"
    )
    assert words(found.locator("bdi.title")) == HOSTILE
    assert HOSTILE in words(found.locator(".remarks"))
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, iframe, object, embed, script[src]").count() == 0
    assert "\u202e" not in words(page.locator("#songs"))


def test_songs_that_are_not_ready_say_why(page):
    assert "It is waiting to be separated." in words(song(page, "Later"))
    assert not song(page, "Cut").locator(".play").is_visible()
    song(page, "Twin").get_by_role("button", name="Go to it").click()
    assert song(page, "Far").locator(".panel").is_visible()


def test_everything_can_be_done_with_keys(long_page):
    page = long_page
    page.keyboard.press("/")
    page.keyboard.type("first")
    assert titles(page) == ["First Song"]
    page.locator("#clear").click()
    song(page, "First Song").locator("button.name").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "Émile"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert song(page, "First Song").locator("button.name").first.get_attribute("aria-expanded") == "true"
    page.keyboard.press("p")
    page.wait_for_function(TOGETHER, arg=4)
    page.keyboard.press("3")
    page.wait_for_function(HEARD, arg=["bass"])
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 5")
    page.keyboard.press("p")
    assert all(sounds(page, "paused").values())
    page.keyboard.press("Escape")
    assert page.locator(".panel").count() == 0


def test_the_tab_key_passes_through_the_table_in_few_steps(page):
    assert page.locator(".entry .row [tabindex='0']").count() == 2


def test_everything_that_can_be_used_has_a_name(page):
    song(page, "First Song").locator("button.name").click()
    script = """all => all.filter(one => one.checkVisibility() && !one.getAttribute('aria-label')
      && !one.textContent.trim() && !one.labels?.length).map(one => one.outerHTML)"""
    assert page.eval_on_selector_all("button, input, select, a, [role=slider]", script) == []


def test_what_a_browser_cannot_play_is_said(opened, tmp_path):
    found = sounding(tmp_path, "old", "Old", ending="aiff", duration_s=2.0)
    (tmp_path / "old" / "bass.aiff").unlink()
    write_page(catalogue(found), tmp_path)
    page = opened(tmp_path)
    assert "does not play AIFF" in page.locator("#notice").inner_text()
    song(page, "Old").locator("button.name").click()
    assert "Not available: the file is missing" in words(page.locator(".lane-body").nth(2))
    page.locator(".entry .play").click()
    page.locator(".trouble").first.wait_for()
    assert "cannot play" in words(page.locator(".trouble").first)


def test_a_thousand_songs_are_one_page(opened, tmp_path):
    waves = sounding(tmp_path, "one", "one", duration_s=1.0)
    songs = [entry(f"Song {n}", 80 + n % 90, f"{n % 12 + 1}A", files=waves.files, folder="one") for n in range(1000)]
    write_page(catalogue(*songs), tmp_path)
    page = opened(tmp_path)
    assert page.locator(".entry").count() == 1000
    assert page.locator("#summary").inner_text().startswith("1,000 of 1,000 songs ready")
    # Only what is near the window is drawn.
    page.wait_for_function(f"() => ({DRAWN})() > 5")
    assert page.evaluate(DRAWN) < 60
    page.get_by_label("Search").fill("song 77")
    assert len(titles(page)) == 19
    page.get_by_label("Search").fill("")
    page.locator("[data-column=tempo] button").click()
    assert titles(page)[:2] == ["Song 0", "Song 90"]
    page.keyboard.press("ArrowDown")
    page.locator(".entry").last.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('canvas')].at(-1).width > 0")
    assert page.evaluate(DRAWN) < 60
