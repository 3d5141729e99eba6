"""Pictures that are read one by one: the table, the large picture and the keys."""

import csv
import json
from dataclasses import fields
from pathlib import Path

import pytest

from covid_ct.rows import Row
from tests.browser.conftest import Open
from tests.browser.steps import SUMS, Gate, choose, drawn, finish, names, pixels, rows, summary
from tests.support.files.studies import series, zipped
from tests.support.processes.client import png
from tests.support.processes.server import running


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """1.png to 4.png; their probabilities fall from the second over the fourth and third to the first."""
    paths = []
    for number, level in enumerate((60, 220, 100, 180), start=1):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(png(level, 200))
    return paths


def test_one_slice_gets_label_probability_and_involvement_without_a_table(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices / "bright.png")
    text = summary(page)
    probability = page.locator("#summary .figure strong").inner_text()
    assert text.startswith("bright.png\n\nCOVID\n")
    assert "at or above the threshold of 50.0 %" in text
    assert "100.0 % of the lungs in this slice" in text
    assert page.locator(".bar").get_attribute("aria-label") == f"Probability {probability}, threshold 50.0 %"
    assert page.locator("#status").inner_text() == f"COVID, {probability}"
    assert page.locator("table tbody tr.selected").count() == 0
    assert page.locator("#profile").is_hidden()


def test_many_files_each_have_their_own_end_and_nothing_in_them_runs(open_page: Open, slices: Path) -> None:
    page = open_page(expected_statuses=(415,))
    choose(page, *(slices / f"{name}.png" for name in ("bright", "text", "dark", "black")))
    cells = finish(page, 4)
    assert [row[0] for row in cells] == ["black.png", "bright.png", "dark.png", "text.png"]
    assert [row[2] for row in cells[:3]] == ["No lungs", "COVID", "NonCOVID"]
    assert cells[3][1:] == ["Unsupported image type"]
    assert "No lungs\n\nCheck score" in summary(page, "black.png")
    assert page.locator("#summary .figure").count() == 0  # the probability of no slice means nothing
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "below the threshold of 50.0 %" in summary(page, "dark.png")
    page.keyboard.press("ArrowDown")
    assert "unsupported_image_type · request" in summary(page, "text.png")
    assert page.locator("#status").inner_text() == "4 of 4 done · 1 failed"


def test_the_table_sorts_both_ways_and_back_with_pictures_without_a_result_last(
    open_page: Open, pictures: list[Path]
) -> None:
    pictures[2].write_bytes(png(2, 200))  # no lungs
    page = open_page()
    choose(page, *pictures)
    finish(page, 4)
    heading = page.get_by_role("columnheader", name="Probability")
    for order, files in (
        ("descending", ["2.png", "4.png", "1.png", "3.png"]),
        ("ascending", ["1.png", "4.png", "2.png", "3.png"]),
        ("none", ["1.png", "2.png", "3.png", "4.png"]),
    ):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert names(page) == files


def test_a_sorted_table_takes_new_answers_in_and_keeps_the_focus(open_page: Open, pictures: list[Path]) -> None:
    page = open_page()
    gate = Gate(page, open_for=1)
    choose(page, *pictures)
    page.locator("#state", has_text="1 of 4 done").wait_for()
    page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
    page.locator("tbody button[aria-current]").focus()
    gate.open()
    finish(page, 4)
    page.wait_for_function("() => document.querySelector('tbody tr th').textContent === '2.png'")
    assert page.evaluate("document.activeElement.textContent") == "1.png"


def test_arrows_go_through_the_rows_in_their_order(open_page: Open, pictures: list[Path]) -> None:
    page = open_page()
    choose(page, *pictures)
    finish(page, 4)
    page.get_by_role("columnheader", name="Probability").get_by_role("button").click()
    page.locator("tbody tr").first.click()
    for key, name in (("ArrowDown", "4.png"), ("ArrowRight", "3.png"), ("ArrowUp", "4.png")):
        page.keyboard.press(key)
        assert name in summary(page, name)
        assert page.locator("tr.selected th").inner_text() == name
    page.locator("tbody button[aria-current]").focus()
    page.keyboard.press("ArrowDown")
    assert "3.png" in summary(page, "3.png")
    assert page.evaluate("document.activeElement.textContent") == "3.png"


def test_the_map_is_drawn_faded_and_outlined_as_asked(open_page: Open, slices: Path) -> None:
    page = open_page()
    choose(page, slices / "bright.png")
    summary(page)
    drawn(page, "bright.png")
    full = pixels(page)
    assert full[0] - full[2] > 0.1 * full[0]  # brightness 0.86 is orange: much red, little blue
    page.get_by_label("lungs", exact=True).uncheck()
    page.wait_for_function(f"([before]) => ({SUMS})()[2] !== before", arg=[full[2]])
    page.get_by_role("slider", name="Map").focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"() => new Set(({SUMS})()).size === 1")
    assert page.get_by_role("slider", name="Map").get_attribute("aria-valuetext") == "0 %"
    assert page.locator("#caption").inner_text() == "bright.png"


def test_a_model_without_lungs_gets_a_legend_of_its_own(open_page: Open, slices: Path, classifier_models: Path) -> None:
    with running(classifier_models) as server:
        page = open_page(server.url)
        choose(page, slices / "bright.png")
        assert "does not check images" in summary(page)
        drawn(page, "bright.png")
        assert "relative to the highest in this slice" in page.locator("#legend").inner_text()
        assert page.get_by_label("lungs", exact=True).is_disabled()


def test_a_run_says_the_time_left_and_can_be_cancelled(open_page: Open, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        path.write_bytes(png(220))
    page = open_page()
    gate = Gate(page, open_for=4)
    choose(page, *paths)
    page.locator("#state", has_text="4 of 8 done · about").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function("() => document.querySelectorAll('tbody .cancelled').length === 4")
    assert [row[2] for row in rows(page)] == ["COVID"] * 4 + ["Cancelled"] * 4
    gate.held.clear()  # the page has given them up
    page.get_by_role("button", name="New study").click()
    gate.open()
    choose(page, paths[0])
    assert "COVID" in summary(page)


def test_a_study_takes_the_place_of_pictures_that_are_still_being_read(
    open_page: Open, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "ct.zip").write_bytes(zipped(series([100.0, 110.0, 120.0])))
    page = open_page()
    gate = Gate(page)
    choose(page, *pictures)
    page.wait_for_function("() => document.querySelectorAll('tbody tr.sending').length === 2")
    choose(page, tmp_path / "ct.zip")
    assert "3 read" in summary(page)
    gate.held.clear()  # the page has given them up
    assert page.locator("table tbody .sending").count() == 0
    assert page.locator("#caption").inner_text().startswith("Slice ")


def test_results_are_saved_as_csv_and_json(open_page: Open, slices: Path, tmp_path: Path) -> None:
    (slices / "bright.png").rename(slices / "=cmd.png")
    page = open_page(expected_statuses=(415,))
    choose(page, *(slices / f"{name}.png" for name in ("=cmd", "black", "text")))
    finish(page, 3)
    files = {}
    for kind in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        files[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[kind])
    with files["CSV"].open(newline="") as file:
        table = csv.DictReader(file)
        saved = list(table)
    assert tuple(table.fieldnames or ()) == tuple(field.name for field in fields(Row))
    assert [row["path"] for row in saved] == ["'=cmd.png", "black.png", "text.png"]  # no spreadsheet runs a file's name
    assert [(row["label"], row["reason"], row["error"]) for row in saved] == [
        ("COVID", "", ""),
        ("", "no_lungs", ""),
        ("", "", "unsupported_image_type"),
    ]
    assert saved[0]["lung_involvement"] == "1"
    results = json.loads(files["JSON"].read_text())["results"]
    assert results[0]["prediction"]["probability"] == pytest.approx(float(saved[0]["probability"]))
    assert results[1]["prediction"]["label"] is None
    assert results[2]["problem"]["code"] == "unsupported_image_type"
