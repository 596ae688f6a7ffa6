"""How unlike the training cells a cell is, measured in the network's last features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoveltyModel", "fit_novelty"]


@dataclass(frozen=True)
class NoveltyModel:
    """Class means and one whitening transform (Mahalanobis distance, Lee et al. 2018).

    Attributes
    ----------
    means : ndarray of float32, shape (classes, D)
        Whitened mean of each class.
    whitening : ndarray of float32, shape (features, D)
        Maps features to where the training cells' spread within a class is 1 in every direction.
    scale : float
        Distance that becomes a novelty of 1.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]
    scale: float

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Novelty of cells.

        Parameters
        ----------
        features : ndarray of float32, shape (N, F)

        Returns
        -------
        ndarray of float32, shape (N,)
            Distance to the nearest class mean, in units of `scale`.
        """
        white = features @ self.whitening
        squared = (
            (white**2).sum(axis=1)[:, np.newaxis]
            - 2.0 * white @ self.means.T
            + (self.means**2).sum(axis=1)
        )
        return (np.sqrt(np.maximum(squared.min(axis=1), 0.0)) / self.scale).astype(np.float32)


def fit_novelty(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    known: NDArray[np.float32],
    dimensions: int = 64,
    kept: float = 0.99,
) -> NoveltyModel:
    """Fit the novelty score.

    Parameters
    ----------
    features : ndarray of float32, shape (N, F)
        Features of training cells.
    labels : ndarray of int, shape (N,)
        Their classes, 0 to classes - 1, each present.
    known : ndarray of float32, shape (M, F)
        Features of validation cells; a fraction `kept` of them gets a novelty of at most 1.
    dimensions : int
        Directions of largest spread within the classes that are kept.
    kept : float

    Returns
    -------
    NoveltyModel
    """
    classes = int(labels.max()) + 1
    means = np.stack([features[labels == k].mean(axis=0) for k in range(classes)])
    residual = (features - means[labels]).astype(np.float64)
    values, vectors = np.linalg.eigh(residual.T @ residual / len(residual))
    order = np.argsort(values)[::-1][:dimensions]
    floor = 1e-3 * values[order[0]]  # directions with next to no spread would decide alone
    whitening = (vectors[:, order] / np.sqrt(np.maximum(values[order], floor))).astype(np.float32)
    unscaled = NoveltyModel((means @ whitening).astype(np.float32), whitening, 1.0)
    scale = float(np.quantile(unscaled.score(known), kept))
    return NoveltyModel(unscaled.means, whitening, scale)
