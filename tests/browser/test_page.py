"""The page as people use it, in a real browser against the real service."""

import csv
import json
from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.browser.steps import choose, drawn, finish, names, shown
from tests.support.networks.tiny import write_models
from tests.support.processes.server import Server, running

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}


def test_a_chosen_slice_gets_label_probability_involvement_and_timing(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices / "bright.png")
    ((name, probability, label, involvement, check),) = finish(page, 1)
    assert (name, label, involvement, check) == ("bright.png", "COVID", "100.0 %", "0.87")
    text = shown(page, "bright.png")
    assert probability in text
    assert "at or above the threshold of 50.0 %" in text
    assert "100.0 % of the lungs in this slice is lesion: left lung 100.0 %" in text
    assert "ms in the service" in text
    spoken = page.locator("#answer .bar").get_attribute("aria-label")
    assert spoken == f"Probability {probability}, threshold 50.0 %"
    assert page.locator("#status").inner_text() == f"COVID, {probability}"
    page.get_by_role("link", name="tiny 0.0.1").last.click()
    assert "knows brightness only" in page.locator("#model").inner_text()
    assert "Left-out source: elsewhere" in page.locator("#model").inner_text()


def test_many_files_each_have_their_own_end_and_nothing_in_them_runs(open_page: Open, slices: Path) -> None:
    page = open_page(expected_statuses=(415,))
    choose(page, *(slices / f"{name}.png" for name in ("bright", "text", "dark", "black")))
    found = finish(page, 4)
    assert [row[0] for row in found] == ["black.png", "bright.png", "dark.png", "text.png"]
    assert [row[2] for row in found] == ["No lungs found", "COVID", "NonCOVID", "Not a readable image"]
    assert "No result: no lungs found" in shown(page, "black.png")
    assert page.locator("#answer .figure").count() == 0  # the probability of no slice means nothing
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "below the threshold of 50.0 %" in shown(page, "dark.png")
    page.keyboard.press("ArrowRight")
    assert "unsupported_image_type · request" in shown(page, "text.png")
    status = page.locator("#status")
    assert status.get_attribute("role") == "status"
    assert status.inner_text() == "4 of 4 done · 1 failed"


def test_no_colour_of_an_answer_is_green(open_page: Open, slices: Path) -> None:
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        choose(page, slices / "dark.png")
        finish(page, 1)
        shown(page, "dark.png")
        for place in ("#answer .verdict", "#answer .bar-value", "#strip .no", "#histogram .no"):
            style = page.locator(place).evaluate(
                "node => [getComputedStyle(node).color, getComputedStyle(node).backgroundColor,"
                " getComputedStyle(node).borderBottomColor, getComputedStyle(node).fill]"
            )
            for colour in style:
                red, green, blue = (float(part) for part in colour.strip("rgba()").split(",")[:3])
                assert green <= max(red, blue), (place, colour)


def test_the_keyboard_alone_suffices(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices / "bright.png", slices / "dark.png")
    finish(page, 2)
    page.locator("#choose").focus()
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"save-csv", "save-json", "with-maps", "clear", "strip", "next", "fade", "outline", "Probability"} <= reached


@pytest.mark.parametrize("with_maps", [False, True], ids=["without maps", "with maps"])
def test_results_are_saved_as_csv_and_json(open_page: Open, slices: Path, tmp_path: Path, with_maps: bool) -> None:
    (slices / "bright.png").rename(slices / "=cmd.png")
    page = open_page(expected_statuses=(415,))
    choose(page, *(slices / f"{name}.png" for name in ("=cmd", "black", "text")))
    finish(page, 3)
    if with_maps:
        page.get_by_label("with map values").check()
    found = {}
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        found[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(found[kind])
    with found["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["'=cmd.png", "black.png", "text.png"]  # no spreadsheet runs a file's name
    assert [(row["label"], row["reason"], row["error"]) for row in rows] == [
        ("COVID", "", ""),
        ("", "no_lungs", ""),
        ("", "", "unsupported_image_type"),
    ]
    assert rows[0]["lung_involvement"] == "1"
    results = json.loads(found["json"].read_text())["results"]
    prediction = results[0]["prediction"]
    assert prediction["probability"] == pytest.approx(float(rows[0]["probability"]))
    assert results[1]["prediction"]["label"] is None
    assert results[2]["problem"]["code"] == "unsupported_image_type"
    assert ("heatmap" in prediction, "lungs" in prediction) == (with_maps, with_maps)
    if with_maps:
        assert prediction["heatmap"]["values"][0][0] == pytest.approx(220 / 255, abs=0.1)
        assert len(prediction["lungs"]["values"]) == prediction["lungs"]["height"] == 4


def test_a_refused_image_is_explained(open_page: Open, slices: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    with running(tmp_path / "models") as server:
        page = open_page(server.url, expected_statuses=(422,))
        choose(page, slices / "black.png")
        assert finish(page, 1)[0][2] == "No lungs found"
        assert "Send one axial chest CT slice that shows lungs" in shown(page, "black.png")


def test_a_key_is_asked_for_once_and_kept_out_of_storage(open_page: Open, slices: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    with running(tmp_path / "models", api_keys="a-key-of-16-chars") as server:
        page = open_page(server.url, expected_statuses=(401,))
        (slices / "bright.png").rename(slices / "more.png")
        choose(page, *(slices / f"{name}.png" for name in ("more", "dark")))
        for key in ("wrong", "a-key-of-16-chars"):
            page.get_by_label("This service requires an API key").fill(key)
            page.keyboard.press("Enter")
            if key == "wrong":
                page.get_by_text("This key was not accepted").wait_for()
        finish(page, 2)
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
    choose(page, slices / "bright.png")
    page.get_by_text("The service is busy; retrying in 1 s").wait_for()
    assert finish(page, 1)[0][2] == "COVID"
    assert len(tries) == 2


def test_a_service_that_is_gone_is_reported(open_page: Open, slices: Path) -> None:
    page = open_page()
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
    choose(page, slices / "bright.png")
    assert finish(page, 1)[0][2] == "Service not reached"
    assert "Is it still running?" in shown(page, "bright.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_is_accessible_fits_and_shows_the_notice(
    open_page: Open, slices: Path, viewport: dict[str, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(viewport=viewport, color_scheme=scheme, expected_statuses=(415,), bypass_csp=True)

    def check() -> None:
        violations = axe.Axe().run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]

    check()
    choose(page, *(slices / f"{name}.png" for name in ("black", "bright", "dark", "text")))
    finish(page, 4)
    for name in names(page):
        shown(page, name)
        if name != "text.png":
            drawn(page, name)
        check()
        page.keyboard.press("ArrowRight")
    page.mouse.wheel(0, 5000)
    notice = page.locator(".notice").bounding_box()
    assert notice is not None
    assert 0 <= notice["y"] < viewport["height"]


def test_the_service_asked_is_the_one_that_serves_the_page(open_page: Open, server: Server) -> None:
    assert open_page().title() == "COVID-CT · research use only"
    assert server.process.poll() is None
