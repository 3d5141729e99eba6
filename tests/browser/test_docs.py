"""/docs in a real browser, which complains of what the policy forbids; nothing else may be reached."""

from pathlib import Path

from tests.browser.conftest import Open
from tests.support.processes.server import Server


def test_every_operation_is_shown_and_nothing_comes_from_elsewhere(open_page: Open, server: Server) -> None:
    page = open_page()
    document = page.request.get(f"{server.url}/openapi.json").json()
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    page.goto(f"{server.url}/docs")
    page.locator(".opblock").first.wait_for()
    assert page.locator(".opblock").count() == len(ids)
    assert page.locator("h3.opblock-tag").count() == len(document["tags"])
    assert document["info"]["version"] in page.locator(".info .title").inner_text()


def test_a_slice_can_be_tried(open_page: Open, server: Server, slices: Path) -> None:
    page = open_page()
    page.goto(f"{server.url}/docs")
    operation = page.locator("#operations-Predictions-predict")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("input[type=file]").set_input_files(slices / "bright.png")
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    answer.get_by_text('"probability"').first.wait_for()
    assert answer.locator(".response-col_status").last.inner_text().startswith("200")
