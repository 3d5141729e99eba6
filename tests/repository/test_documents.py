"""The documents keep their form: short enough to read, and without broken links."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"])
LABELS: Final = ["Context", "Options", "Choice", "Consequence"]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_or_heading_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    local = [link for link in links if "://" not in link]
    for link in local:
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
    ("name", "lines"),
    [("README.md", 125), ("docs/architecture.md", 85)],
)
def test_a_page_stays_short(name: str, lines: int) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= lines


def test_every_decision_has_four_parts_in_at_most_ten_lines() -> None:
    entries = re.split(r"^## ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.findall(r"^- \*\*(\w+)\.\*\*", entry, flags=re.MULTILINE) == LABELS, entry
        assert len([line for line in entry.splitlines() if line]) <= 10, entry


def test_the_numbers_of_decisions_are_unique_and_ascend() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, flags=re.MULTILINE)]
    assert numbers == sorted(set(numbers))


def test_every_decision_that_a_page_names_exists() -> None:
    entries = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE))
    named = {number for page in PAGES for number in re.findall(r"\bdecision (\d+)\b", page.read_text())}
    assert named <= entries


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`((?:service|training|client|tests|benchmarks)/[\w/.]*)`", page.read_text()):
        assert (ROOT / name).exists(), name
