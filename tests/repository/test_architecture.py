"""docs/architecture.md lists every module."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]


def listed(package: str) -> set[str]:
    """Read the indented tree of a package, and return the paths of its modules."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (tree,) = re.findall(rf"^```\n({package}/\n.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    folders: list[str] = []
    modules = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = [*folders[:depth], name]
        if name.endswith(".py"):
            modules.add("".join(folders))
    return modules


@pytest.mark.parametrize("package", ["service", "training", "client"])
def test_the_tree_lists_every_module_and_no_other(package: str) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py") if path.stem != "__init__"}
    assert listed(package) == files


def test_every_module_that_a_page_names_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]
    for page in pages:
        for name in re.findall(r"`((?:service|training|client|tests|benchmarks)/[\w/.]*)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
