"""The page as people use it, in a real browser against the real service."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Open
from tests.browser.steps import choose, drawn, finish, names, summary
from tests.support.files.studies import series, zipped
from tests.support.networks.tiny import write_models
from tests.support.processes.server import running

if TYPE_CHECKING:
    from playwright.sync_api import Route

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


def test_the_model_is_three_lines_with_its_scores_behind_a_click(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("link", name="Model 0.0.1").click()
    lines = page.locator("#model-lines dd").all_inner_texts()
    assert [line.split(",")[0] for line in lines] == [
        "tiny 0.0.1",
        "AUC with 95 % interval: official test (1 slice) 0.50 (0.40 to 0.60); elsewhere",
        "knows brightness only",
    ]
    assert page.locator("#model-scores").is_hidden()
    page.get_by_text("Scores and thresholds").click()
    assert page.locator("#model-scores tbody tr").evaluate_all("rows => rows.every(row => row.clientHeight < 40)")
    assert "elsewhere" in page.locator("#model-scores").inner_text()
    assert "balanced 50.0 %, screening 30.0 %" in page.locator("#model-scores").inner_text()


def test_no_colour_of_an_answer_is_green(open_page: Open, slices: Path) -> None:
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        choose(page, slices / "dark.png")
        summary(page)
        for place in ("#summary .verdict", "#summary .bar-value"):
            style = page.locator(place).evaluate(
                "node => [getComputedStyle(node).color, getComputedStyle(node).backgroundColor]"
            )
            for colour in style:
                red, green, blue = (float(part) for part in colour.strip("rgba()").split(",")[:3])
                assert green <= max(red, blue), (place, colour)


def test_the_keyboard_alone_suffices(open_page: Open, slices: Path, tmp_path: Path) -> None:
    (tmp_path / "ct.zip").write_bytes(zipped(series([100.0, 110.0, 120.0])))
    page = open_page()

    def reached() -> set[str]:
        page.locator("body").press("Home")
        stops = set()
        for _ in range(25):
            page.keyboard.press("Tab")
            stops.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        return stops

    assert {"choose", "choose-folder", "Drawn study", "Drawn slice"} <= reached()
    choose(page, tmp_path / "ct.zip")
    summary(page)
    page.get_by_role("button", name="SR", exact=True).wait_for()
    assert {"new", "Slice 1", "CSV", "JSON", "SEG", "frame", "slice", "fade", "outline", "zoom-in"} <= reached()
    page.get_by_role("button", name="New study").press("Enter")
    choose(page, slices / "bright.png", slices / "dark.png")
    finish(page, 2)
    assert {"bright.png", "Probability", "CSV", "JSON"} <= reached()


def test_a_refused_image_is_explained(open_page: Open, slices: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    with running(tmp_path / "models") as server:
        page = open_page(server.url, expected_statuses=(422,))
        choose(page, slices / "black.png")
        assert "Send one axial chest CT slice that shows lungs" in summary(page, "No lungs")
        drawn(page, "black.png")
        assert page.get_by_role("slider", name="Map").is_hidden()


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


@pytest.mark.parametrize(("route", "name"), [("**/explain*", "bright.png"), ("**/predict/study*", "ct.dcm")])
def test_a_busy_service_is_asked_again(open_page: Open, slices: Path, route: str, name: str) -> None:
    (slices / "ct.dcm").write_bytes(series([100.0])[0])
    page = open_page(expected_statuses=(503,))
    tries: list[int] = []

    def answer(request: "Route") -> None:
        tries.append(1)
        if len(tries) == 1:
            request.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
        else:
            request.continue_()

    page.route(route, answer)
    choose(page, slices / name)
    page.get_by_text("The service is busy; retrying in 1 s").first.wait_for()
    summary(page)
    assert len(tries) == 2


def test_a_service_that_is_gone_is_reported(open_page: Open, slices: Path) -> None:
    page = open_page()
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
    choose(page, slices / "bright.png")
    assert "Is the service still running?" in summary(page, "Service not reached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_is_accessible_fits_and_shows_the_notice(
    open_page: Open, slices: Path, viewport: dict[str, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(viewport=viewport, color_scheme=scheme, expected_statuses=(415,), bypass_csp=True)

    def check() -> None:
        violations = axe.Axe().run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]

    check()
    page.get_by_text("Scores and thresholds").click()
    check()
    choose(page, *(slices / f"{name}.png" for name in ("black", "bright", "dark", "text")))
    finish(page, 4)
    for name in names(page):
        summary(page, name)
        drawn(page, "" if name == "text.png" else name)
        check()
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="New study").click()
    page.get_by_role("button", name="Drawn study").click()
    summary(page)
    page.get_by_role("button", name="SR", exact=True).wait_for()
    check()
    page.mouse.wheel(0, 5000)
    notice = page.locator(".notice").bounding_box()
    assert notice is not None
    assert 0 <= notice["y"] < viewport["height"]
