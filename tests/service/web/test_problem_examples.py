"""The problems that the OpenAPI document shows are those that the sources raise."""

import re
from pathlib import Path

from service import errors
from service.settings import Settings
from service.web.app import create_app
from service.web.problem_examples import PROBLEM_EXAMPLES
from service.web.problems import MEDIA_TYPE

SOURCES = Path(errors.__file__).parent
UNANSWERED = {"client_gone"}
"""Nobody is left to read it."""


def test_every_code_that_is_raised_has_one_example() -> None:
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    raised = set(re.findall(r"""\bcode ?= ?"([a-z0-9_]+)\"""", text)) - UNANSWERED
    shown = [error.code for error in PROBLEM_EXAMPLES]
    assert len(shown) == len(set(shown))
    assert set(shown) == raised


def test_every_documented_problem_has_examples_of_its_status() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    answers = [
        (int(status), answer["content"][MEDIA_TYPE])
        for methods in paths.values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if MEDIA_TYPE in answer.get("content", {})
    ]
    assert len(answers) > 20
    for status, content in answers:
        assert content["examples"]
        assert {example["value"]["status"] for example in content["examples"].values()} == {status}
