"""Every way in which slices come to the page."""

import base64
import zipfile
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.browser.conftest import Open
from tests.browser.steps import choose, drop, finish, names, shown
from tests.support.files.dicoms import ct, phantom
from tests.support.processes.client import png

DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  return data;
}"""


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_file_can_be_dropped(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["dropped.png", base64.b64encode(png(220)).decode()])
    page.dispatch_event("#drop", "dragover", {"dataTransfer": data})
    assert "over" in str(page.locator("#drop").get_attribute("class"))
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert finish(page, 1)[0][0] == "dropped.png"


def test_an_image_can_be_pasted(open_page: Open) -> None:
    page = open_page()
    data = page.evaluate_handle(DROP, ["image.png", base64.b64encode(png(220)).decode()])
    page.evaluate(
        "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))", data
    )
    assert finish(page, 1)[0][0] == "image.png"


def test_a_folder_is_dropped_with_all_below_it_in_the_order_of_its_numbers(open_page: Open, tmp_path: Path) -> None:
    series = tmp_path / "series"
    (series / "more").mkdir(parents=True)
    for name in ("2.png", "10.png", "1.png", "more/3.png", ".hidden.png", "DICOMDIR"):
        (series / name).write_bytes(png(220))
    page = open_page()
    drop(page, series)
    finish(page, 4)
    assert names(page) == ["series/1.png", "series/2.png", "series/10.png", "series/more/3.png"]
    assert "2 hidden or index files skipped" in page.locator("#state").inner_text()


def test_a_dicom_series_is_ordered_by_instance_number(open_page: Open, tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    reference = Dataset()
    reference.SeriesInstanceUID, reference.InstanceNumber = "1.9", 9
    for name, uid, number, syntax in (
        ("a", "1.2", 12, ExplicitVRLittleEndian),
        ("b", "1.2", 9, ImplicitVRLittleEndian),
        ("c", "1.3", 1, ExplicitVRLittleEndian),
        ("d", "1.2", 10, ExplicitVRLittleEndian),
    ):
        nested = Sequence([reference])
        nested.is_undefined_length = name != "d"
        changes = {"ReferencedImageSequence": nested, "SeriesInstanceUID": uid, "InstanceNumber": number}
        (series / f"{name}.dcm").write_bytes(ct(phantom(), syntax, **changes))
    (series / "b.png").write_bytes(png(220))
    page = open_page()
    drop(page, series)
    finish(page, 5)
    assert [name.split("/")[-1] for name in names(page)] == ["b.dcm", "d.dcm", "a.dcm", "b.png", "c.dcm"]


def test_a_folder_of_hundreds_of_files_is_read_whole(open_page: Open, tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    for number in range(230):  # a browser lists a hundred entries at a time
        (series / f"{number}.nii").write_bytes(b"")
    page = open_page()
    drop(page, series)
    assert len(finish(page, 230)) == 230


def test_a_folder_can_be_chosen(open_page: Open, slices: Path) -> None:
    page = open_page(expected_statuses=(415,))
    page.set_input_files("#folder", slices)
    finish(page, 4)
    assert [name.split("/")[-1] for name in names(page)] == ["black.png", "bright.png", "dark.png", "text.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_zip_is_read_in_the_browser(open_page: Open, tmp_path: Path, method: int) -> None:
    members = {"b/2.png": png(60), "b/10.png": png(220), "b/": b"", "__MACOSX/b/._2.png": b"x", "b/scan.nii.gz": b"x"}
    page = open_page()
    choose(page, packed(tmp_path / "series.zip", members, method))
    found = finish(page, 3)
    assert [row[0] for row in found] == ["series.zip!b/2.png", "series.zip!b/10.png", "series.zip!b/scan.nii.gz"]
    assert [row[2] for row in found] == ["NonCOVID", "COVID", "A NIfTI volume"]
    assert "1 hidden or index file skipped" in page.locator("#state").inner_text()


def test_a_zip_that_cannot_be_read_says_why_and_the_rest_goes_on(open_page: Open, tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.zip", {"1.png": png(220)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    packed(tmp_path / "empty.zip", {})
    flag = whole.rindex(b"PK\x01\x02") + 8
    (tmp_path / "secret.zip").write_bytes(whole[:flag] + b"\x01" + whole[flag + 1 :])
    size = whole.rindex(b"PK\x01\x02") + 24
    (tmp_path / "liar.zip").write_bytes(whole[:size] + b"\x05\0\0\0" + whole[size + 4 :])
    page = open_page()
    choose(page, *(tmp_path / f"{name}.zip" for name in ("cut", "empty", "liar", "secret", "whole")))
    found = finish(page, 5)
    assert [row[0] for row in found] == [
        "cut.zip",
        "empty.zip",
        "liar.zip!1.png",
        "secret.zip!1.png",
        "whole.zip!1.png",
    ]
    assert [row[1] for row in found[:4]] == [""] * 4
    assert found[4][2] == "COVID"
    for step, reason in enumerate(("damaged or incomplete", "holds no files", "damaged or incomplete", "encrypted")):
        if step:
            page.keyboard.press("ArrowRight")
        assert reason in shown(page, found[step][0])


def test_volumes_and_archives_name_the_way_to_go(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_bytes(b"")
    (tmp_path / "unnamed").write_bytes(b"\0" * 344 + b"n+1\0" + b"\0" * 100)
    (tmp_path / "series.tar.gz").write_bytes(b"\x1f\x8b" + b"\0" * 100)
    page = open_page()
    choose(page, *sorted(tmp_path.iterdir()))
    assert [row[2] for row in finish(page, 3)] == ["A NIfTI volume", "Compressed file", "A NIfTI volume"]
    assert "covid-ct predict scan.nii.gz" in shown(page, "ct.nii")
    page.keyboard.press("ArrowRight")
    assert "Unpack it, and drop the folder" in shown(page, "series.tar.gz")


def test_a_document_that_is_a_zip_inside_is_one_file(open_page: Open, tmp_path: Path) -> None:
    packed(tmp_path / "report.docx", {"word/document.xml": b"<x/>"})
    page = open_page(expected_statuses=(415,))
    choose(page, tmp_path / "report.docx")
    assert finish(page, 1)[0][2] == "Not a readable image"


@pytest.mark.parametrize(("button", "key"), [("choose", "Enter"), ("choose", "Space"), ("choose-folder", "Enter")])
def test_enter_and_space_open_the_file_chooser(open_page: Open, button: str, key: str) -> None:
    page = open_page()
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == button:
            break
    # Listening begins before the key: a browser that is asked to report choosers only then may have opened one already.
    page.on("filechooser", lambda _: None)
    page.evaluate("0")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press(key)
    assert chooser.value.element.get_attribute("id") == {"choose": "files", "choose-folder": "folder"}[button]
