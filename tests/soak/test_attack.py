"""2,000 hostile uploads, 20 bombs of each kind and floods of connections, against the shipped model."""

from statistics import median

import pytest

from tests.support.processes.attack import attack
from tests.support.processes.server import ROOT, running

pytestmark = pytest.mark.soak


def test_2000_hostile_uploads_with_20_bombs_of_each_kind_while_good_slices_are_sent() -> None:
    with running(ROOT / "models", threads=2, out_of_distribution="flag", log_level="WARNING") as server:
        outcome = attack(server, uploads=2000, bombs_of_each=20)
    slowest, usual = max(outcome.seconds), max(outcome.usual_seconds)
    print(
        f"\n{len(outcome.seconds)} good slices: median {median(outcome.seconds):.2f}, slowest {slowest:.2f} s; at as "
        f"many connections of good slices {median(outcome.usual_seconds):.2f} and {usual:.2f} s; memory "
        f"{outcome.before:.0f}, at most {outcome.peak:.0f}, after {outcome.after:.0f} MiB; {sorted(outcome.statuses)}"
    )
    assert max(outcome.probabilities) < 1
    assert max(outcome.probabilities) - min(outcome.probabilities) < 0.005
    assert slowest < 3 * usual
    assert outcome.peak < 1.2 * 1024
    assert outcome.after < 1.1 * outcome.before
