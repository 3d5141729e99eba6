"""Makes the pictures in docs/images with the shipped model: the page in Chromium, and a slice next to its heat map.

`make screenshots` runs it. It uses only drawn slices, never an image of a data set or of a patient.
"""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402
from PIL import Image  # noqa: E402 - the repository's root must be importable first

from tests.browser.chromium import chromium  # noqa: E402
from tests.support.processes.server import running  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = ROOT / "docs" / "images"


def main() -> None:
    """Start the service and make every picture."""
    with running(ROOT / "models", log_level="WARNING") as server:
        _explain(server.url, ROOT / "examples" / "lesion.png", FOLDER / "lesion.png")
        with chromium() as browser:
            _shoot(browser, server.url, FOLDER / "page.png")


def _explain(url: str, file: Path, target: Path) -> None:
    """Put a slice and the picture of its heat map next to each other."""
    answer = httpx2.post(f"{url}/explain?lungs=true", files={"image": file.read_bytes()}, timeout=60).raise_for_status()
    with Image.open(file) as plain, Image.open(io.BytesIO(answer.content)) as explained:
        both = Image.new("RGB", (plain.width + explained.width, explained.height), "white")
        both.paste(plain, (0, 0))
        both.paste(explained, (plain.width, 0))
    both.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2).save(target, optimize=True)


def _shoot(browser: "Browser", url: str, target: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    page.get_by_role("button", name="Drawn study").click()
    page.get_by_role("button", name="SR", exact=True).wait_for(timeout=120_000)
    page.wait_for_function("document.querySelector('#picture').dataset.of")
    page.screenshot(path=target)
    page.close()
    with Image.open(target) as image:
        small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)  # halves the size
    small.save(target, optimize=True)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
