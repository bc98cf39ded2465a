"""A real Chromium without a screen, driven by Playwright. Where either is missing, the test is skipped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from timeouts import PATIENCE_S

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
