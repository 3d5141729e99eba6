"""Makes the pictures in docs/images with the shipped model: the page in Chromium, and a slice next to its heat map.

`make screenshots` runs it. It uses only generated slices, never an image of a data set or of a patient.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402
from PIL import Image  # noqa: E402 - the repository's root must be importable first

from examples.draw_slice import draw_slice  # noqa: E402
from tests.browser.chromium import chromium  # noqa: E402
from tests.support.processes.server import running  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = ROOT / "docs" / "images"
SLICES = 8


def main() -> None:
    """Start the service and make every picture."""
    with tempfile.TemporaryDirectory() as folder, running(ROOT / "models", log_level="WARNING") as server:
        _explain(server.url, ROOT / "examples" / "lesion.png", FOLDER / "lesion.png")
        files = _files(Path(folder))
        with chromium() as browser:
            _shoot(browser, server.url, files, FOLDER / "page.png")


def _explain(url: str, file: Path, target: Path) -> None:
    """Put a slice and the picture of its heat map next to each other."""
    answer = httpx2.post(f"{url}/explain?lungs=true", files={"image": file.read_bytes()}, timeout=60).raise_for_status()
    with Image.open(file) as plain, Image.open(io.BytesIO(answer.content)) as explained:
        both = Image.new("RGB", (plain.width + explained.width, explained.height), "white")
        both.paste(plain, (0, 0))
        both.paste(explained, (plain.width, 0))
    both.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2).save(target, optimize=True)


def _files(folder: Path) -> list[Path]:
    """Draw generated slices, every second one with disease, and an image that is not a slice."""
    paths = [folder / f"generated-{seed + 1}.png" for seed in range(SLICES)]
    for seed, path in enumerate(paths):
        Image.fromarray(draw_slice(seed, disease=seed % 2 == 1)).save(path)
    other = folder / "holiday.png"
    Image.radial_gradient("L").resize((320, 240)).save(other)
    return [*paths, other]


def _shoot(browser: "Browser", url: str, files: list[Path], target: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    page.set_input_files("#files", files)
    page.wait_for_function("count => document.querySelector('#progress').value === count", arg=len(files))
    page.get_by_role("columnheader", name="Involv").get_by_role("button").click()
    page.locator("tbody tr").first.click()
    first = page.locator("tbody tr th").first.text_content()
    page.wait_for_function("name => document.querySelector('#map').dataset.of === name", arg=first)
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
