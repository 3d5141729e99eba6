"""Takes the screenshots in docs/images: the page with the shipped model, in Chromium; run by `make screenshots`.

Uses only generated slices, never an image of a data set or of a patient.
"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402 - the repository's root must be importable first

from tests.browser.chromium import chromium  # noqa: E402
from tests.support.server import running  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = ROOT / "docs" / "images"
SLICE = ROOT / "examples" / "slice.png"

SHOTS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1100, "height": 860}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1100, "height": 860}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def main() -> None:
    """Start the service and take every screenshot."""
    with tempfile.TemporaryDirectory() as folder, running(ROOT / "models", log_level="WARNING") as server:
        files = _files(Path(folder))
        with chromium() as browser:
            for name, options in SHOTS.items():
                _shoot(browser, server.url, files, FOLDER / f"{name}.png", options)


def _files(folder: Path) -> list[Path]:
    """Return the example slice and an image that is not a slice."""
    other = folder / "holiday.png"
    Image.radial_gradient("L").resize((320, 240)).save(other)
    return [SLICE, other]


def _shoot(browser: "Browser", url: str, files: list[Path], target: Path, options: dict[str, Any]) -> None:
    page = browser.new_page(**options)
    page.goto(url)
    page.set_input_files("#files", files)
    page.wait_for_function("count => document.querySelectorAll('.done, .failed').length === count", arg=len(files))
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    page.evaluate("document.getElementById('work').scrollIntoView()")
    page.screenshot(path=target)
    page.close()
    with Image.open(target) as image:
        small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)  # halves the size
    small.save(target, optimize=True)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
