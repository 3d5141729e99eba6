"""Steps of a person on the page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route


def choose(page: "Page", *paths: Path) -> None:
    """Choose files."""
    page.set_input_files("#files", list(paths))


def finish(page: "Page", count: int) -> list[list[str]]:
    """Wait for the results of several pictures: the cells of the table's rows."""
    page.wait_for_function(
        "count => document.querySelectorAll('#list tbody tr').length === count"
        " && document.querySelector('#busy').hidden"
        " && document.querySelectorAll('#list tbody tr:is(.waiting, .sending)').length === 0",
        arg=count,
    )
    return rows(page)


def rows(page: "Page") -> list[list[str]]:
    """The cells of the table's rows."""
    cells: list[list[str]] = page.locator("#list tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return cells


def names(page: "Page") -> list[str]:
    """The files in the order of the table."""
    return [row[0] for row in rows(page)]


def summary(page: "Page", text: str = "") -> str:
    """Wait until the summary has a verdict and this text: all of its text."""
    page.locator("#summary:has(.verdict)", has_text=text).wait_for()
    return page.locator("#summary").inner_text()


def drawn(page: "Page", name: str) -> None:
    """Wait until the picture with this name is drawn."""
    page.wait_for_function("name => document.querySelector('#picture').dataset.of === name", arg=name)


SUMS = """() => {
  const canvas = document.getElementById("picture");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d"); // reading slows the page's own down
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  const sums = [0, 0, 0];
  data.forEach((value, at) => { if (at % 4 < 3) sums[at % 4] += value; });
  return sums;
}"""
"""Script: the sums of red, green and blue of the picture."""


def pixels(page: "Page") -> list[int]:
    """The sums of red, green and blue of the picture."""
    sums: list[int] = page.evaluate(SUMS)
    return sums


class Gate:
    """Holds requests for a route, past the first `open_for` ones, until it is opened."""

    def __init__(self, page: "Page", open_for: int = 0, route: str = "**/explain*") -> None:
        self.held: list[Route] = []
        self._left = open_for
        page.route(route, self._take)

    def _take(self, route: "Route") -> None:
        if self._left > 0:
            self._left -= 1
            route.continue_()
        else:
            self.held.append(route)

    def open(self) -> None:
        """Let everything through that still waits for its answer."""
        self._left = 1_000_000
        for route in self.held:
            route.continue_()
        self.held.clear()


def drop(page: "Page", *paths: Path) -> None:
    """Drop files or folders of the disk, like a person with a mouse."""
    session: Any = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 250, "data": data})
