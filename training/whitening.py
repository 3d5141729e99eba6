"""What varies in chest CT whatever its class, learnt without labels, so that a probe can make less of it.

Variation between scanners, patients and heights of the body is much larger than that between classes, and a few hundred
labelled slices are too few to tell one from the other; other hospitals' slices show the former without a label.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.preprocessing import StandardScaler


class Whitening:
    """Damps the directions along which features of other slices vary: x -> (I + S / ridge)^-1 x.

    S is the covariance of their standardised features. A linear model whose inner products are x' (I + S / ridge)^-1 x
    is that of within-class covariance normalisation (Hatch & Stolcke 2006, doi 10.1109/ICASSP.2006.1660343), with a
    covariance regularised as in Friedman 1989 (doi 10.1080/01621459.1989.10478752).

    Args:
        sets: features of slices, float32 (M, D) each, one array a source. Each is standardised by its own mean and
            deviation, so that what tells sources apart counts for nothing.
        ridge: variance of a standardised feature, whose own is 1, from which on a direction is damped; above 0.
    """

    def __init__(self, sets: Sequence[NDArray[np.float32]], ridge: float) -> None:
        self._rows = np.concatenate([StandardScaler().fit_transform(each) for each in sets]).astype(np.float32)
        # by Woodbury's identity in as many dimensions as there are slices, of which there are fewer than features
        inner = (self._rows @ self._rows.T).astype(np.float64)
        inner[np.diag_indices_from(inner)] += len(inner) * ridge
        self._factor = cho_factor(inner, lower=True, overwrite_a=True)

    def damp(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardised features float32 (N, D) -> float32 (N, D)."""
        shares = cho_solve(self._factor, (self._rows @ features.T).astype(np.float64))
        damped: NDArray[np.float32] = features - shares.T.astype(np.float32) @ self._rows
        return damped
