from typing import get_args

import pytest

from service.model.assess import CheckResult, refusal, run_checks
from service.model.card import CheckName

THRESHOLDS: dict[CheckName, float] = {"no_lungs": 0.5, "wrong_window": 0.8, "several_panels": 0.5}


@pytest.mark.parametrize(
    ("no_lungs", "wrong_window", "several_panels", "expected"),
    [
        (0.1, 0.2, 0.3, CheckResult(0.6, None)),
        (0.5, 0.8, 0.5, CheckResult(1.0, None)),
        (0.6, 0.2, 0.3, CheckResult(1.2, "no_lungs")),
        (0.1, 0.88, 0.3, CheckResult(1.1, "wrong_window")),
        (0.1, 0.2, 1.0, CheckResult(2.0, "several_panels")),
        (0.6, 1.0, 0.3, CheckResult(1.25, "no_lungs")),
        (1.0, 1.0, 0.6, CheckResult(2.0, "several_panels")),
    ],
)
def test_the_score_is_the_highest_and_the_reason_the_first_that_fails(
    no_lungs: float, wrong_window: float, several_panels: float, expected: CheckResult
) -> None:
    scores: dict[CheckName, float] = {
        "no_lungs": no_lungs,
        "wrong_window": wrong_window,
        "several_panels": several_panels,
    }
    result = run_checks(scores, THRESHOLDS)
    assert result.score == pytest.approx(expected.score)
    assert result.reason == expected.reason
    assert result.failed == (expected.reason is not None)


def test_a_model_without_checks_passes_everything() -> None:
    assert run_checks({}, {}) == CheckResult(0.0, None)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("no_lungs", "axial chest CT slice"),
        ("wrong_window", "width 1500, level -600"),
        ("several_panels", "Cut out one slice"),
    ],
)
def test_a_refusal_says_what_to_send_instead(reason: CheckName, words: str) -> None:
    error = refusal(reason)
    assert (error.status, error.code) == (422, reason)
    assert words in error.detail
    assert error.title != refusal(next(name for name in get_args(CheckName) if name != reason)).title
