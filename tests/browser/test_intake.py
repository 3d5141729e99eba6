"""Every way in which files come to the page."""

import base64
from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.browser.steps import choose, drawn, drop, finish, names, summary
from tests.support.files.studies import gzipped, series, volume, zipped
from tests.support.processes.client import png

HEIGHTS = [100.0 + 10 * step for step in range(5)]

DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  return data;
}"""


def test_a_file_can_be_dropped(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["dropped.png", base64.b64encode(png(220)).decode()])
    page.dispatch_event("#drop", "dragover", {"dataTransfer": data})
    assert page.locator("body.over").count() == 1
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert page.locator("body.over").count() == 0
    assert "dropped.png" in summary(page)


def test_images_can_be_pasted_one_after_the_other(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["image.png", base64.b64encode(png(220)).decode()])
    paste = "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))"
    page.evaluate(paste, data)
    summary(page)
    page.evaluate(paste, data)
    assert [row[2] for row in finish(page, 2)] == ["COVID", "COVID"]


def test_a_folder_of_pictures_is_a_table_in_the_order_of_its_numbers(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("2.png", "10.png", "1.png", "more/3.png"):
        (folder / name).write_bytes(png(220))
    page = open_page()
    drop(page, folder)
    finish(page, 4)
    assert names(page) == ["pictures/1.png", "pictures/2.png", "pictures/10.png", "pictures/more/3.png"]


def test_pictures_can_be_read_as_one_series(open_page: Open, tmp_path: Path) -> None:
    for name in ("1", "2", "10"):
        (tmp_path / f"{name}.png").write_bytes(png(220))
    page = open_page()
    choose(page, *tmp_path.iterdir())
    finish(page, 3)
    page.get_by_role("button", name="Read as one series").click()
    assert "3 read" in summary(page, "Series probability")


def test_a_folder_of_hundreds_of_files_is_sent_whole_and_once(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "study" / "more"
    folder.mkdir(parents=True)
    for number in range(230):  # a browser lists a hundred entries at a time
        (folder / f"{number}.txt").write_text("text")
    for number, data in enumerate(series(HEIGHTS)):
        (folder.parent / f"IM{number}").write_bytes(data)
    page = open_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    drop(page, folder.parent)
    text = summary(page)
    assert "5 read" in text
    assert "230 other files skipped" in text
    assert len([url for url in requests if "/predict/study" in url]) == 1
    assert not any("/explain" in url for url in requests)


def test_a_folder_can_be_chosen(open_page: Open, tmp_path: Path) -> None:
    for number, data in enumerate(series(HEIGHTS)):
        (tmp_path / f"IM{number}").write_bytes(data)
    page = open_page()
    page.set_input_files("#folder", tmp_path)
    assert "5 read" in summary(page)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ct.zip", zipped({f"a b/{number}": data for number, data in enumerate(series(HEIGHTS))})),
        ("ct.nii.gz", gzipped(volume(HEIGHTS).to_bytes())),
        ("ct.nii", volume(HEIGHTS).to_bytes()),
    ],
    ids=["zip", "nifti compressed", "nifti"],
)
def test_a_zip_or_a_volume_is_a_study(open_page: Open, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    page = open_page()
    choose(page, tmp_path / name)
    text = summary(page)
    assert "5 read; 10.0 mm apart" in text
    assert "ml, lesions" in text


def test_one_dicom_slice_has_a_result_and_a_picture(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(series([100.0])[0])
    page = open_page()
    choose(page, tmp_path / "slice")
    assert "1 read" in summary(page)
    drawn(page, "Slice 0 (0 to 0)")
    assert page.locator("#profile").is_hidden()


@pytest.mark.parametrize(
    ("name", "data", "headline", "reason"),
    [
        ("cut.zip", zipped({"1": series([100.0])[0]})[:300], "Damaged archive", "Pack it again"),
        ("notes", b"text", "No slices", "The content is not an image"),
    ],
    ids=["damaged zip", "text"],
)
def test_a_study_that_cannot_be_read_says_why(
    open_page: Open, tmp_path: Path, name: str, data: bytes, headline: str, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    page = open_page(expected_statuses=(422,))
    choose(page, tmp_path / name)
    page.locator("#problem").wait_for()
    text = page.locator("#problem").inner_text()
    assert headline in text
    assert reason in text
    page.get_by_role("button", name="Choose other files").click()
    assert page.locator("#drop").is_visible()


@pytest.mark.parametrize(("sample", "text"), [("Drawn study", "(0 to 25)"), ("Drawn slice", "sample-slice.jpg")])
def test_a_drawn_sample_can_be_tried_with_one_click(open_page: Open, sample: str, text: str) -> None:
    page = open_page()
    page.get_by_role("button", name=sample).click()
    assert summary(page)
    page.locator("#caption", has_text=text).wait_for()
