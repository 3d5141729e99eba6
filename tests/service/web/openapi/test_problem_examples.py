"""The problems that the OpenAPI document shows are those that the sources raise."""

from service.errors import ErrorCode
from service.settings import Settings
from service.web.app import create_app
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES
from service.web.problems import MEDIA_TYPE

OF_THE_ROUTER = {ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED}
"""Answered where no route is, so no route documents them."""

OF_A_FILE = {
    ErrorCode.SECONDARY_CAPTURE,
    ErrorCode.DUPLICATE_POSITION,
    ErrorCode.NESTED_ARCHIVE,
    ErrorCode.ENCRYPTED,
    ErrorCode.UNSAFE_NAME,
}
"""Reasons of a file of a study, which are in the answer."""


def test_every_code_that_reaches_a_client_has_one_example() -> None:
    shown = [error.code for error in PROBLEM_EXAMPLES]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(ErrorCode) - OF_THE_ROUTER - OF_A_FILE - {ErrorCode.CLIENT_GONE}


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
