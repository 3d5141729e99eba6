"""Hostile uploads, bombs and floods of connections: good slices are answered as usual, and memory comes back."""

from pathlib import Path
from statistics import median

from tests.support.processes.attack import attack
from tests.support.processes.server import running


def test_good_slices_are_answered_as_usual_during_an_attack_and_memory_comes_back(models: Path) -> None:
    """A short one; tests/soak has 2,000 uploads with 20 bombs of each kind."""
    with running(models, out_of_distribution="flag", log_level="WARNING") as server:
        outcome = attack(server, uploads=100, bombs_of_each=1)
        assert server.process.poll() is None
    assert len(set(outcome.probabilities)) == 1, outcome.probabilities
    assert outcome.probabilities[0] < 1
    assert outcome.statuses <= {200, 415, 422, 503, 504}
    assert median(outcome.seconds) < 3 * max(outcome.usual_seconds)
    assert outcome.peak < 1.2 * 1024
    assert outcome.after < 1.1 * outcome.before
