"""2,000 hostile uploads and 20 bombs of each kind at 16 connections, against the shipped model."""

import pytest

from tests.support.processes.attack import attack
from tests.support.processes.server import ROOT, running

pytestmark = pytest.mark.soak


def test_2000_hostile_uploads_with_20_bombs_of_each_kind_while_good_slices_are_sent() -> None:
    with running(ROOT / "models", out_of_distribution="flag", log_level="WARNING") as server:
        attack(server, uploads=300, bombs_of_each=1)  # what everything needs once
        outcome = attack(server, uploads=2000, bombs_of_each=20)
    slowest = max(seconds for _, seconds in outcome.good)
    print(
        f"\n{len(outcome.good)} good slices, slowest {slowest:.2f} s, alone {outcome.usual_seconds:.2f} s; memory "
        f"{outcome.before:.0f}, at most {outcome.peak:.0f}, after {outcome.after:.0f} MiB; {sorted(outcome.statuses)}"
    )
    probabilities = [probability for probability, _ in outcome.good]
    assert max(probabilities) < 1
    assert max(probabilities) - min(probabilities) < 0.005
    assert outcome.peak < 1200
    assert outcome.after < 1.1 * outcome.before
