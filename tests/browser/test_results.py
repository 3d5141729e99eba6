"""Many slices: the table, the strip, the large view and the keys."""

import zipfile
from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.browser.steps import SUMS, Gate, choose, drawn, finish, names, pixels, rows, shown
from tests.support.processes.client import png
from tests.support.processes.server import running


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """1.png to 4.png; their probabilities fall from the second over the fourth and third to the first."""
    paths = []
    for number, level in enumerate((60, 220, 100, 180), start=1):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(png(level, 200))
    return paths


def test_the_table_sorts_both_ways_and_back_and_the_strip_follows(open_page: Open, series: list[Path]) -> None:
    page = open_page()
    choose(page, *series)
    finish(page, 4)
    heading = page.get_by_role("columnheader", name="Probability")
    for order, files in (
        ("descending", ["2.png", "4.png", "3.png", "1.png"]),
        ("ascending", ["1.png", "3.png", "4.png", "2.png"]),
        ("none", ["1.png", "2.png", "3.png", "4.png"]),
    ):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert names(page) == files
        assert page.locator("#strip > div").evaluate_all("all => all.map(each => each.title)") == files


def test_slices_without_an_answer_are_last_whichever_way_it_sorts(open_page: Open, series: list[Path]) -> None:
    series[0].write_bytes(png(2, 200))  # no lungs
    page = open_page()
    choose(page, *series)
    finish(page, 4)
    for _ in range(2):
        page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
        assert rows(page)[-1][:4] == ["1.png", "—", "No lungs found", "—"]


def test_a_sorted_table_takes_new_answers_in_and_keeps_the_focus(open_page: Open, series: list[Path]) -> None:
    page = open_page()
    gate = Gate(page, open_for=1)
    choose(page, *series)
    page.wait_for_function("() => document.querySelector('#progress').value === 1")
    button = page.get_by_role("columnheader", name="Probability").get_by_role("button")
    button.click()
    page.locator("tbody button[aria-current]").focus()
    gate.open()
    finish(page, 4)
    page.wait_for_function("() => document.querySelector('tbody tr th').textContent === '2.png'")
    assert page.evaluate("document.activeElement.textContent") == "1.png"


def test_arrows_go_to_the_next_and_previous_slice_in_the_order_of_the_table(
    open_page: Open, series: list[Path]
) -> None:
    page = open_page()
    choose(page, *series)
    finish(page, 4)
    page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
    page.locator("tbody tr").first.click()
    assert "2.png" in shown(page, "2.png")
    for key, name, place in (
        ("ArrowRight", "4.png", "2 of 4"),
        ("ArrowRight", "3.png", "3 of 4"),
        ("ArrowLeft", "4.png", "2 of 4"),
    ):
        page.keyboard.press(key)
        shown(page, name)
        assert page.locator("#position").inner_text() == place
        assert page.locator("[role=option][aria-selected=true]").get_attribute("title") == name
    page.locator("tbody button[aria-current]").focus()
    page.keyboard.press("ArrowDown")
    shown(page, "3.png")
    assert page.evaluate("document.activeElement.textContent") == "3.png"
    page.get_by_role("button", name="Next slice").click()
    shown(page, "1.png")
    assert page.get_by_role("button", name="Next slice").get_attribute("aria-disabled") == "true"


def test_arrows_in_the_slider_fade_the_map_and_change_no_slice(open_page: Open, series: list[Path]) -> None:
    page = open_page()
    choose(page, *series)
    finish(page, 4)
    page.get_by_role("slider", name="Map").focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("slider", name="Map").input_value() == "99"
    assert page.locator("#viewer-title").inner_text() == "1.png"


def test_the_map_is_drawn_faded_and_outlined_as_asked(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices / "bright.png")
    finish(page, 1)
    drawn(page, "bright.png")
    grey, full = pixels(page, "slice"), pixels(page, "map")
    assert grey[0] == grey[1] == grey[2]
    assert full[0] - full[2] > 0.1 * full[0]  # brightness 0.86 is orange: much red, little blue
    page.get_by_label("outline of the lungs").uncheck()
    page.wait_for_function(f"([before]) => ({SUMS})('map')[2] !== before", arg=[full[2]])
    page.get_by_role("slider", name="Map").focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"grey => ({SUMS})('map').every((sum, at) => sum === grey[at])", arg=grey)
    assert page.get_by_role("slider", name="Map").get_attribute("aria-valuetext") == "0 %"


def test_a_model_without_lungs_gets_a_legend_of_its_own(open_page: Open, slices: Path, classifier_models: Path) -> None:
    with running(classifier_models) as server:
        page = open_page(server.url)
        choose(page, slices / "bright.png")
        assert finish(page, 1)[0][3] == "—"
        drawn(page, "bright.png")
        assert "relative to the highest in this slice" in page.locator("#legend").inner_text()
        assert page.get_by_label("outline of the lungs").is_disabled()
        assert "does not check images" in page.locator("#answer").inner_text()


def test_a_run_says_the_time_left_can_be_cancelled_and_continued(open_page: Open, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        path.write_bytes(png(220))
    page = open_page()
    gate = Gate(page, open_for=4)
    choose(page, *paths)
    page.locator("#state", has_text="4 of 8 done · about 5 s left").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#state", has_text="4 of 8 done · 4 cancelled").wait_for()
    assert [row[2] for row in rows(page)] == ["COVID"] * 4 + ["Cancelled"] * 4
    gate.held.clear()  # the page has given them up
    gate.open()
    page.get_by_role("button", name="Send the rest").click()
    assert [row[2] for row in finish(page, 8)] == ["COVID"] * 8


def test_clearing_gives_up_what_is_under_way(open_page: Open, series: list[Path]) -> None:
    page = open_page()
    gate = Gate(page)
    choose(page, *series)
    page.wait_for_function("() => document.querySelectorAll('tbody tr.sending').length === 2")
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#work").is_hidden()
    gate.held.clear()
    gate.open()
    choose(page, series[1])
    assert finish(page, 1)[0][2] == "COVID"


def test_the_histogram_counts_the_answers_and_not_what_failed_a_check(open_page: Open, series: list[Path]) -> None:
    series[2].write_bytes(png(2, 200))
    series[3].write_text("no image")
    page = open_page(expected_statuses=(415,))
    choose(page, *series)
    finish(page, 4)
    page.wait_for_function("() => document.querySelectorAll('#histogram rect').length === 2")
    assert page.locator("#counts li").all_inner_texts() == ["1 COVID", "1 NonCOVID", "1 no result", "1 failed"]
    spoken = page.locator("#histogram svg").get_attribute("aria-label")
    assert spoken is not None
    assert spoken.startswith("Probabilities of 2 slices: lowest 1")


ANSWER_AT_ONCE = """text => {
  const ask = window.fetch;
  let count = 0;
  const answer = () => text.replace(/"probability":[^,]+/, `"probability":${((count += 1) * 37 % 500) / 500}`);
  window.fetch = (url, ...rest) =>
    String(url).startsWith("explain") ? Promise.resolve(new Response(answer())) : ask(url, ...rest);
}"""


def test_five_hundred_slices_stay_usable(open_page: Open, tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    one.write_bytes(png(220))
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for number in range(500):
            archive.writestr(f"{number:03}.png", png(220))
    page = open_page(viewport={"width": 1280, "height": 900})
    with page.expect_response("**/explain*") as response:
        choose(page, one)
    text = response.value.text()
    finish(page, 1)
    page.get_by_role("button", name="Clear").click()
    page.evaluate(ANSWER_AT_ONCE, text)  # the page is tried here, not the service
    page.set_default_timeout(120_000)
    choose(page, tmp_path / "series.zip")
    assert len(finish(page, 500)) == 500
    page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
    shares = [float(row[1].removesuffix(" %")) for row in rows(page)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 500
    assert page.evaluate("document.documentElement.scrollHeight") < 2500
    stops = "#work [tabindex='0'], #work button:not([tabindex='-1'])"
    assert page.evaluate("stops => document.querySelectorAll(stops).length", stops) < 25
    page.locator("tbody tr").last.click()
    drawn(page, names(page)[-1])
    assert page.locator("#position").inner_text() == "500 of 500"
    assert page.evaluate("() => document.querySelector('#strip').scrollLeft") > 10_000
