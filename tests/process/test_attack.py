"""Hostile uploads and bombs together: good slices are answered as alone, and memory comes back."""

from pathlib import Path

from tests.support.processes.attack import attack
from tests.support.processes.server import running


def test_good_slices_are_answered_as_alone_during_an_attack_and_memory_comes_back(models: Path) -> None:
    """A short one; tests/soak has 2,000 uploads with 20 bombs of each kind."""
    with running(models, out_of_distribution="flag", log_level="WARNING") as server:
        first = attack(server, uploads=50, bombs_of_each=1)  # network and form reader keep memory after their first use
        outcome = attack(server, uploads=100, bombs_of_each=1)
        assert server.process.poll() is None
    assert len({probability for probability, _ in outcome.good}) == 1, outcome.good
    assert outcome.good[0][0] < 1
    assert outcome.statuses <= {200, 415, 422, 503, 504}
    assert outcome.peak < 1200
    assert first.after < first.before + 200
    assert outcome.after < 1.1 * first.after
