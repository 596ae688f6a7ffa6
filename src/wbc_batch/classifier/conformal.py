"""Prediction sets that hold the true class with a chosen probability (split conformal prediction).

Class by class (Vovk 2012, Mondrian conformal predictors), so that the promise holds for a rare class as for
a frequent one, wherever cells are exchangeable with the validation cells of the same class. Another
laboratory's are not: there the sets tell which classes are in question, not how often they hold the truth.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["conformal_scores", "conformal_thresholds", "prediction_sets"]


def conformal_scores(
    probabilities: NDArray[np.float32], labels: NDArray[np.intp]
) -> tuple[NDArray[np.float32], ...]:
    """Measure how badly the truth was missed by each validation cell, class by class.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (N, classes)
        Calibrated.
    labels : ndarray of int, shape (N,)

    Returns
    -------
    tuple of ndarray of float32
        One array per class, ascending: 1 minus the probability of the true class.
    """
    missed = 1.0 - probabilities[np.arange(len(labels)), labels]
    return tuple(np.sort(missed[labels == k]) for k in range(probabilities.shape[1]))


def conformal_thresholds(
    scores: Sequence[NDArray[np.float32]], coverage: float
) -> NDArray[np.float32]:
    """Smallest score of each class that covers: the ceil((n + 1) coverage)-th of n.

    Parameters
    ----------
    scores : sequence of ndarray of float32
        As `conformal_scores` returns them.
    coverage : float
        Wanted probability that a set holds the true class, 0 to 1.

    Returns
    -------
    ndarray of float32, shape (classes,)
        1 where the class has too few validation cells for the promise: it is in every set then.
    """
    thresholds = np.ones(len(scores), np.float32)
    wanted = Fraction(str(coverage))  # 100 * 0.55 is more than 55 in binary
    for k, ascending in enumerate(scores):
        rank = math.ceil((len(ascending) + 1) * wanted)
        if 1 <= rank <= len(ascending):
            thresholds[k] = ascending[rank - 1]
    return thresholds


def prediction_sets(
    probabilities: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Say which classes cannot be excluded.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (N, classes)
    thresholds : ndarray of float32, shape (classes,)

    Returns
    -------
    ndarray of bool, shape (N, classes)
        A row may be empty: then the cell is like no class of the validation cells.
    """
    return 1.0 - probabilities <= thresholds
