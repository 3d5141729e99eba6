"""The system's Chromium, started so that it reaches nothing but this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = [
    "--no-sandbox",  # the tests may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""None where the system has none."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright  # the tests are collected where it is absent

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
