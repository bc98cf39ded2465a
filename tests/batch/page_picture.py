"""The picture of a catalogue's page in the README, of a batch that `tsbs-daw batch` has made.

PYTHONPATH=tests python -m batch.page_picture CRATE docs/catalogue.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from batch.browser import browser, matching_songs

from tsbs_daw.batch.page import write_page
from tsbs_daw.contracts.catalogue import Catalogue


def arranged(catalogue: Catalogue, fits: dict[str, list[str]]) -> Catalogue:
    """The song that goes with most others stands second, with what goes with it, and what went wrong, below."""
    done = [song for song in catalogue.songs if song.analysis]
    chosen = max(done, key=lambda song: len(fits[song.source]))
    near = [song for song in done if song.source in fits[chosen.source]]
    far = [song for song in done if song.source not in fits[chosen.source] and song is not chosen]
    odd = [song for song in catalogue.songs if song.state in ("failed", "duplicate")]
    rest = [song for song in catalogue.songs if song not in (*done, *odd)]
    songs = (*far[:1], chosen, *near[:1], *odd[:1], *near[1:], *odd[1:], *far[1:], *rest)
    return catalogue.model_copy(update={"songs": songs})


def main(crate: str, picture: str) -> None:
    folder = Path(crate)
    catalogue = Catalogue.from_json((folder / "catalogue.json").read_text(encoding="utf-8"), "catalogue.json")
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 1190}, color_scheme="light")
        path = write_page(arranged(catalogue, matching_songs(page, catalogue.songs)), folder)
        page.goto(path.as_uri())
        waves = page.locator(".entry").nth(1).locator(".picture")
        waves.click(position={"x": waves.bounding_box()["width"] * 0.6, "y": 20})
        page.wait_for_function("() => document.querySelector('audio')?.currentTime > 18")
        page.mouse.move(2, 2)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=picture)
    write_page(catalogue, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
