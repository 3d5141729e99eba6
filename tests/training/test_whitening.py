import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from training.whitening import Whitening

RIDGE = 0.5


@pytest.fixture
def features() -> NDArray[np.float32]:
    """Forty slices of six features, of which the first three rise and fall together."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(40, 6))
    rows[:, :3] += 4 * rows[:, :1]
    return rows.astype(np.float32)


def test_damping_is_the_inverse_of_the_regularised_covariance(features: NDArray[np.float32]) -> None:
    scaled = StandardScaler().fit_transform(features)
    covariance = scaled.T @ scaled / len(scaled)
    expected = np.linalg.inv(np.eye(6) + covariance / RIDGE)
    np.testing.assert_allclose(Whitening([features], RIDGE).damp(np.eye(6, dtype=np.float32)), expected, atol=1e-5)


def test_what_varies_most_is_damped_most(features: NDArray[np.float32]) -> None:
    together = np.array([[1, 1, 1, 0, 0, 0]], np.float32) / np.sqrt(3)
    alone = np.array([[0, 0, 0, 1, 0, 0]], np.float32)
    whitening = Whitening([features], RIDGE)
    assert np.linalg.norm(whitening.damp(together)) < 0.5 * np.linalg.norm(whitening.damp(alone))


def test_what_tells_two_sources_apart_counts_for_nothing(features: NDArray[np.float32]) -> None:
    moved = 10 * features + 100
    both = Whitening([features, moved], RIDGE).damp(features)
    np.testing.assert_allclose(both, Whitening([features, features], RIDGE).damp(features), atol=1e-4)
