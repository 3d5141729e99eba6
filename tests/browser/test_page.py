"""The page as people use it, in a real browser against the real service."""

import base64
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Open
from tests.support.client import png
from tests.support.server import Server, running
from tests.support.tiny import write_models

if TYPE_CHECKING:
    from playwright.sync_api import Page

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  return data;
}"""


def choose(page: "Page", folder: Path, *names: str) -> None:
    page.set_input_files("#files", [folder / f"{name}.png" for name in names])


def finish(page: "Page", count: int) -> list[str]:
    """Wait for all results: their texts."""
    page.wait_for_function("count => document.querySelectorAll('.done, .failed').length === count", arg=count)
    return page.locator(".result").all_inner_texts()


def test_a_chosen_slice_gets_probability_verdict_words_and_timing(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices, "bright")
    (text,) = finish(page, 1)
    assert "COVID: at or above the threshold" in text
    assert "threshold 50.0 %" in text
    assert "tiny 0.0.1" in text
    assert "ms in the service" in text
    spoken = page.locator(".bar").get_attribute("aria-label")
    assert spoken is not None
    assert spoken.startswith("Probability 9")
    page.get_by_role("link", name="tiny 0.0.1").last.click()
    assert "knows brightness only" in page.locator("#model").inner_text()


def test_the_slider_fades_the_heat_map(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices, "bright")
    finish(page, 1)
    slider = page.get_by_role("slider", name="Heat map")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".overlay").evaluate("image => image.style.opacity") == "0"
    assert slider.get_attribute("aria-valuetext") == "0 %"
    sizes = page.locator(".stack img").evaluate_all(
        "images => images.map(each => [each.naturalWidth, each.naturalHeight])"
    )
    assert sizes == [[200, 200], [200, 200]]


def test_many_files_each_have_their_own_end_and_nothing_in_them_runs(open_page: Open, slices: Path) -> None:
    page = open_page(expected_statuses=(415,))
    choose(page, slices, "bright", "text", "dark", "black")
    texts = finish(page, 4)
    assert page.locator(".result-name").all_inner_texts() == ["bright.png", "text.png", "dark.png", "black.png"]
    assert "not an image the service reads" in texts[1]
    assert "unsupported_image_type" in texts[1]
    assert "Not COVID: below the threshold" in texts[2]
    assert "does not look like a chest CT slice" in texts[3]
    assert "the probability below means nothing" in texts[3]
    status = page.locator("#status")
    assert status.get_attribute("role") == "status"
    assert status.inner_text().startswith("4 of 4 done · 1 failed")


def test_files_can_be_dropped(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["dropped.png", base64.b64encode(png(220)).decode()])
    page.dispatch_event("#drop", "dragover", {"dataTransfer": data})
    assert "over" in str(page.locator("#drop").get_attribute("class"))
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert "dropped.png" in finish(page, 1)[0]


def test_an_image_can_be_pasted(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["image.png", base64.b64encode(png(220)).decode()])
    page.evaluate(
        "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))", data
    )
    assert "image.png" in finish(page, 1)[0]


def test_the_keyboard_alone_suffices(open_page: Open, slices: Path) -> None:
    page = open_page()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "files":
            break
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(slices / "bright.png")
    finish(page, 1)
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"save-csv", "save-json", "clear", "fade-1"} <= reached


def test_results_are_saved_as_csv_and_json(open_page: Open, slices: Path, tmp_path: Path) -> None:
    (slices / "bright.png").rename(slices / "=cmd.png")
    page = open_page(expected_statuses=(415,))
    choose(page, slices, "=cmd", "text")
    finish(page, 2)
    found = {}
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        found[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(found[kind])
    with found["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["'=cmd.png", "text.png"]  # no spreadsheet runs a file's name
    assert (rows[0]["label"], rows[0]["problem"], rows[1]["problem"]) == ("COVID", "", "unsupported_image_type")
    results = json.loads(found["json"].read_text())["results"]
    assert results[0]["prediction"]["probability"] == pytest.approx(float(rows[0]["probability"]))
    assert results[1]["problem"]["code"] == "unsupported_image_type"


def test_clearing_starts_anew(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices, "bright")
    finish(page, 1)
    page.click("#clear")
    assert page.locator("#work").is_hidden()
    choose(page, slices, "bright")
    assert len(finish(page, 1)) == 1


def test_a_refused_image_is_explained(open_page: Open, slices: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    with running(tmp_path / "models") as server:
        page = open_page(server.url, expected_statuses=(422,))
        choose(page, slices, "black")
        assert "No lungs found" in finish(page, 1)[0]


def test_a_key_is_asked_for_once_and_kept_out_of_storage(open_page: Open, slices: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    with running(tmp_path / "models", api_keys="a-key-of-16-chars") as server:
        page = open_page(server.url, expected_statuses=(401,))
        choose(page, slices, "bright", "dark", "bright")
        for key in ("wrong", "a-key-of-16-chars"):
            page.get_by_label("This service asks for an API key").fill(key)
            page.keyboard.press("Enter")
            if key == "wrong":
                page.get_by_text("That key was not accepted").wait_for()
        finish(page, 3)
        assert page.locator("#key-form").is_hidden()
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_busy_service_is_asked_again(open_page: Open, slices: Path) -> None:
    page = open_page(expected_statuses=(503,))
    tries = []

    def busy_at_first(route: object) -> None:
        tries.append(1)
        if len(tries) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/explain*", busy_at_first)
    choose(page, slices, "bright")
    page.get_by_text("The service is busy; again in 1 s").wait_for()
    assert "COVID" in finish(page, 1)[0]
    assert len(tries) == 2


def test_a_service_that_is_gone_is_told_of(open_page: Open, slices: Path) -> None:
    page = open_page()
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
    choose(page, slices, "bright")
    assert "The service could not be reached" in finish(page, 1)[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_is_accessible_fits_and_shows_the_notice(
    open_page: Open, slices: Path, viewport: dict[str, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(viewport=viewport, color_scheme=scheme, expected_statuses=(415,), bypass_csp=True)
    choose(page, slices, "bright", "text", "black")
    finish(page, 3)
    violations = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.mouse.wheel(0, 5000)
    notice = page.locator(".notice").bounding_box()
    assert notice is not None
    assert 0 <= notice["y"] < viewport["height"]


def test_the_service_asked_is_the_one_that_serves_the_page(open_page: Open, server: Server) -> None:
    assert open_page().title() == "COVID-CT · research use only"
    assert server.process.poll() is None
