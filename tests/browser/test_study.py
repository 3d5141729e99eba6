"""A study: its summary, the stack of its slices, and its files."""

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from covid_ct.rows import Row
from tests.browser.conftest import Open
from tests.browser.steps import Gate, choose, drawn, pixels, summary
from tests.support.files.dicoms import ct
from tests.support.files.studies import series, zipped
from tests.support.networks.tiny import TinyDoctor, doctor_card, write_models
from tests.support.processes.server import running

HEIGHTS = [100.0 + 10 * step for step in range(8)]
COUNT = len(HEIGHTS) + 2
LAST = COUNT - 1


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A zip of eight slices with lungs, two black ones above them, a report and a damaged file."""
    files = {f"IM{number}": data for number, data in enumerate([*series(HEIGHTS), dark(180), dark(190)])}
    path = tmp_path / "ct.zip"
    path.write_bytes(zipped({**files, "report.pdf": b"%PDF-1.4", "damaged": series([0.0])[0][:-50]}))
    return path


def dark(height: float) -> bytes:
    """A black slice of the same series, in which the tiny network finds no lungs."""
    elements: dict[str, Any] = {
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "SOPInstanceUID": f"1.2.3.{height}",
        "ImagePositionPatient": [-157.5, -157.5, height],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [5, 5],
        "RescaleIntercept": -3000,
    }
    return ct(np.zeros((64, 64), np.uint16), **elements)


def test_a_study_has_label_probability_involvement_severity_volumes_and_what_was_left_out(
    open_page: Open, study: Path
) -> None:
    page = open_page()
    choose(page, study)
    text = summary(page)
    assert text.startswith("NonCOVID\n")
    assert "probability of COVID-19, below the threshold of 50.0 %" in text
    assert "CT-2 50.0 % of the lungs is lesion (band: 25 to 50 %)" in text
    assert "Volumes\nlungs 8,192 ml, lesions 4,096 ml" in text
    assert "8 read, 2 without lungs; 10.0 mm apart" in text
    assert "1 other file failed" in text
    assert "1 other file skipped" in text
    page.get_by_text("1 other file failed").click()
    assert "damaged Damaged image" in page.locator("#summary").inner_text()
    assert "Research use only" in page.locator(".notice").inner_text()
    assert page.locator("#status").inner_text().startswith("NonCOVID, ")


def test_three_probabilities_are_said_in_a_sentence_each(open_page: Open, study: Path, tmp_path: Path) -> None:
    write_models(tmp_path / "models", doctor_card(), TinyDoctor())
    with running(tmp_path / "models", log_level="WARNING") as server:
        page = open_page(server.url)
        choose(page, study)
        page.get_by_role("button", name="SR", exact=True).wait_for()
        lesion, cause, both = page.locator(".sentences li").all_inner_texts()
    assert lesion.startswith("Lesions are present with a probability of ")
    assert cause.startswith("If they are, COVID-19 rather than another disease is the cause with ")
    assert both.startswith("So the probability of COVID-19 is ")


@pytest.mark.parametrize(("width", "height", "side"), [(1280, 800, 600), (1920, 1080, 900)])
def test_summary_and_picture_fill_the_screen_without_scrolling(
    open_page: Open, study: Path, width: int, height: int, side: int
) -> None:
    page = open_page(viewport={"width": width, "height": height})
    choose(page, study)
    summary(page)
    for selector in (".notice", "#summary", ".keys", "#downloads", "#picture", "#profile", ".controls"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert box["y"] >= 0, selector
        assert box["y"] + box["height"] <= height, selector
    assert page.evaluate("() => { const { scrollHeight, clientHeight } = document.querySelector('.side');"
                         " return scrollHeight <= clientHeight; }")  # fmt: skip
    picture = page.locator("#picture").bounding_box()
    assert picture is not None
    assert min(picture["width"], picture["height"]) >= side


def test_wheel_arrows_profile_and_key_slices_go_through_the_stack(open_page: Open, study: Path) -> None:
    page = open_page()
    choose(page, study)
    summary(page)
    page.get_by_role("slider", name="Slice, from").press("Home")
    drawn(page, f"Slice 0 (0 to {LAST})")
    page.locator("#frame").hover()
    page.mouse.wheel(0, -120)
    drawn(page, f"Slice 1 (0 to {LAST})")
    page.locator("#frame").focus()
    page.keyboard.press("ArrowUp")
    drawn(page, f"Slice 2 (0 to {LAST})")
    page.keyboard.press("ArrowDown")
    drawn(page, f"Slice 1 (0 to {LAST})")
    assert page.locator("#caption").inner_text() == f"Slice 1 (0 to {LAST}) · 110.0 mm"
    slider = page.get_by_role("slider", name="Slice, from")
    box = slider.bounding_box()
    assert box is not None
    slider.click(position={"x": 5, "y": 2})
    drawn(page, f"Slice {LAST} (0 to {LAST})")
    assert page.locator("#finding").inner_text() == "No lungs"
    assert slider.get_attribute("aria-valuetext") == f"Slice {LAST} (0 to {LAST}) · 190.0 mm, No lungs"
    key = page.locator(".keys button").first
    key.click()
    drawn(page, f"{key.inner_text()} (0 to {LAST})")
    assert key.get_attribute("aria-pressed") == "true"


def test_slices_without_lungs_are_grey_and_not_red(open_page: Open, study: Path) -> None:
    page = open_page()
    choose(page, study)
    summary(page)
    colours = page.locator("#profile .empty").evaluate_all(
        "all => all.map(bar => getComputedStyle(bar).backgroundColor)"
    )
    assert len(colours) == 2
    for colour in colours:
        red, green, blue = (float(part) for part in colour.strip("rgb()").split(","))
        assert red <= green <= blue
    assert page.locator("#profile .failed").count() == 0


def test_the_picture_zooms_by_keys_buttons_and_wheel(open_page: Open, study: Path) -> None:
    page = open_page()
    choose(page, study)
    summary(page)
    page.locator("#picture[data-of]:not([data-of=''])").wait_for()
    page.get_by_role("slider", name="Map").fill("0")
    whole = pixels(page)
    page.locator("#frame").focus()
    for _ in range(5):
        page.keyboard.press("+")
    assert pixels(page) != whole
    page.keyboard.press("0")
    assert pixels(page) == whole
    page.get_by_role("button", name="Zoom in").click()
    assert page.locator("#frame.zoomed").count() == 1
    page.get_by_role("button", name="Fit").click()
    assert pixels(page) == whole


def test_results_are_saved_as_csv_json_seg_and_sr(open_page: Open, study: Path, tmp_path: Path) -> None:
    page = open_page()
    choose(page, study)
    summary(page)
    content = {}
    for name in ("CSV", "JSON", "SEG", "SR"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        content[name] = path.read_bytes()
    table = csv.DictReader(io.StringIO(content["CSV"].decode()))
    rows = list(table)
    assert tuple(table.fieldnames or ()) == tuple(field.name for field in fields(Row))
    assert [row["path"] for row in rows] == [*(f"IM{number}" for number in range(COUNT)), "damaged"]
    assert [row["error"] for row in rows] == [""] * 8 + ["no_lungs"] * 2 + ["damaged_image"]
    (answer,) = json.loads(content["JSON"])["series"]
    assert (rows[0]["series"], rows[0]["instance"], rows[0]["position_mm"]) == ("1.2.3", "1.2.3.1", "100")
    assert float(rows[0]["probability"]) == answer["slices"][0]["probability"]
    assert [pydicom.dcmread(io.BytesIO(content[kind])).Modality for kind in ("SEG", "SR")] == ["SEG", "SR"]


def test_each_series_of_a_study_can_be_chosen(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "ct.zip"
    path.write_bytes(zipped([*series(HEIGHTS[:3], "1.2.3"), *series(HEIGHTS, "1.2.4")]))
    page = open_page()
    choose(page, path)
    summary(page)
    for option, text in (("Series 0", "3 read"), ("Series 1", "8 read")):
        label = page.locator("#summary option", has_text=option).inner_text()
        page.get_by_label("Series").select_option(label)
        assert text in summary(page, text)
    drawn(page, page.locator(".key-button[aria-pressed=true]").inner_text() + " (0 to 7)")


def test_warnings_of_a_series_are_shown(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "ct.zip"
    heights = [*HEIGHTS[:4], *(height + 40 for height in HEIGHTS[4:])]
    path.write_bytes(zipped(series(heights)))
    page = open_page()
    choose(page, path)
    summary(page)
    assert page.get_by_role("list", name="Warnings").locator("li").count() == 1


def test_an_upload_shows_its_progress_and_can_be_cancelled(open_page: Open, study: Path) -> None:
    page = open_page()
    gate = Gate(page, route="**/predict/study*")
    choose(page, study)
    page.locator("#state", has_text="Sending").wait_for()
    page.get_by_role("button", name="Cancel").click()
    assert page.locator("#busy").is_hidden()
    assert page.locator("#drop").is_visible()
    gate.held.clear()  # the page has given it up
    gate.open()
    choose(page, study)
    summary(page)
    page.get_by_role("button", name="New study").click()
    assert page.locator("#desk").is_hidden()
    assert page.evaluate("document.activeElement.id") == "choose"
