"""The picture of the page in its documentation: the queue in the dark beside a song on a phone.

PYTHONPATH=tests python -m web.page_picture FOLDER docs/web.png

FOLDER is made, and shown on the picture as the place of the songs.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from batch.browser import browser
from web.page_home import full_home
from web.serving import served

BOTH = """<style>body {{ margin: 0; display: flex; gap: 24px; background: #fff; width: max-content }}
img {{ display: block; border-radius: 12px; border: 1px solid #ccc }}</style>
<img src="data:image/png;base64,{0}" height="820"><img src="data:image/png;base64,{1}" height="820">"""


def main(folder: str, picture: str) -> None:
    root = Path(folder)
    root.mkdir(parents=True)
    home = full_home(root)
    with served(home.settings.home, "--out", str(root / "stems")) as page, browser() as chromium:
        name, _, value = page.sign_in().cookie.partition("=")
        taken = []
        for view, there, look in (
            ("queue", ".job.running", {"viewport": {"width": 1040, "height": 860}, "color_scheme": "dark"}),
            (f"song/{home.jobs['Night Drive'].id}", ".mixer", {"viewport": {"width": 390, "height": 860}}),
        ):
            context = chromium.new_context(**look)
            context.add_cookies([{"name": name, "value": value, "url": page.url}])
            home.beat()
            tab = context.new_page()
            tab.goto(f"{page.url}/#{view}")
            tab.wait_for_selector(f"main > section:not([hidden]) {there}")
            tab.wait_for_function("() => document.getElementById('summary').textContent.startsWith('1 running')")
            tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            taken.append(base64.b64encode(tab.screenshot()).decode())
        tab = chromium.new_page(viewport={"width": 1420, "height": 830})
        tab.set_content(BOTH.format(*taken))
        tab.locator("body").screenshot(path=picture)
    home.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
