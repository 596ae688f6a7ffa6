"""Confidence that means what it says."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

__all__ = ["expected_calibration_error", "fit_temperature"]


def fit_temperature(
    logits: NDArray[np.float32],
    labels: NDArray[np.intp],
    evidence: NDArray[np.float32] | float = 0.0,
) -> float:
    """Temperature that minimises the negative log-likelihood (Guo et al. 2017).

    Parameters
    ----------
    logits : ndarray of float32, shape (N, classes)
    labels : ndarray of int, shape (N,)
    evidence : ndarray of float32, shape (N, classes), or 0
        Log-likelihoods from elsewhere, which the temperature leaves as they are.

    Returns
    -------
    float
        Between 0.05 and 20.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature) + evidence, axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(
    probabilities: NDArray[np.float32], labels: NDArray[np.intp], bins: int = 15
) -> float:
    """Mean distance of confidence and accuracy over equally wide bins (Naeini et al. 2015).

    Parameters
    ----------
    probabilities : ndarray of float32, shape (N, classes)
    labels : ndarray of int, shape (N,)
    bins : int

    Returns
    -------
    float
        0 (confidence is accuracy) to 1.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - correct[place == b].mean()) * (place == b).mean()
        for b in np.unique(place)
    ]
    return float(np.sum(gaps))
