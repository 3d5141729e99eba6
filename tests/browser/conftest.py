"""Fixtures of the tests in a browser; they skip where there is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import PATH, chromium
from tests.support.processes.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]


# Of the package, not the session: playwright's loop runs in this thread until it ends, and no test elsewhere that has a
# loop of its own could run meanwhile.
@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -c constraints.txt '.[browser]'")
    if PATH is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: "Browser", server: Server) -> Iterator[Open]:
    """Opens the page; anything on its console fails the test at the end, but for the statuses that a test expects."""
    complaints: list[str] = []
    contexts = []

    def open_it(url: str = server.url, expected_statuses: tuple[int, ...] = (), **options: Any) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        allowed = tuple(f"status of {status}" for status in expected_statuses)

        def hear(text: str) -> None:
            if not any(status in text for status in allowed):
                complaints.append(text)

        page.on("console", lambda message: hear(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "blob:", "data:"))
                else complaints.append(f"asked for {request.url}")
            ),
        )
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """A folder of bright.png, dark.png, black.png (no slice to the tiny network) and text.png (no image)."""
    from tests.support.processes.client import png

    for name, level in (("bright", 220), ("dark", 60), ("black", 2)):
        (tmp_path / f"{name}.png").write_bytes(png(level, 200))
    (tmp_path / "text.png").write_text("<img src=x onerror=alert(1)>")
    return tmp_path
