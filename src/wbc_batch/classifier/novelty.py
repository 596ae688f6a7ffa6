"""How unlike the training cells a cell is, measured in what the network sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NoveltyModel", "fit_novelty"]

# Spread that is added to every direction, in mean spreads: those with next to none would decide alone.
_RIDGE = 0.003
# How far the spread of the variations counts.
_TOLERANCE = 0.3
# How much squared distances count in the directions that do not tell the classes apart.
_OTHER_DIRECTIONS = 0.15
# Largest entry of the whitening transform; half precision ends at 65,504.
_LARGEST = 1000.0


@dataclass(frozen=True)
class NoveltyModel:
    """Class means and one whitening transform (Mahalanobis distance, Lee et al. 2018), weighted.

    Attributes
    ----------
    means : ndarray of float32, shape (classes, D)
        Whitened mean of each class.
    whitening : ndarray of float32, shape (traces, D)
        Maps traces to where the training cells' spread within a class is the same in every direction that
        tells classes apart, and less in the others.
    scale : float
        Distance that becomes a novelty of 1.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]
    scale: float

    def score(self, traces: NDArray[np.float32]) -> NDArray[np.float32]:
        """Novelty of cells.

        Parameters
        ----------
        traces : ndarray of float32, shape (N, G)

        Returns
        -------
        ndarray of float32, shape (N,)
            Distance to the nearest class mean, in units of `scale`.
        """
        import torch

        return self.scorer("cpu")(torch.from_numpy(traces)).numpy()

    def scorer(self, device: str) -> "Callable[[Tensor], Tensor]":
        """Give a function like `score` for traces on a device.

        On the CPU beside a GPU, the whitening would take longer than the network does.
        """
        import torch

        whitening = torch.from_numpy(self.whitening).to(device, torch.float64)
        means = torch.from_numpy(self.means).to(device, torch.float64)

        def score(traces: "Tensor") -> "Tensor":
            white = traces.double() @ whitening
            squared = torch.stack([((white - mean) ** 2).sum(dim=1) for mean in means]).amin(dim=0)
            # Rounded, so that the order of additions, which hangs on the number of cells, does not show.
            return torch.round(squared.sqrt() / self.scale, decimals=5).float()

        return score


def fit_novelty(
    traces: NDArray[np.float32],
    varied: NDArray[np.float32],
    labels: NDArray[np.intp],
    known: NDArray[np.float32],
    *,
    kept: float = 0.99,
) -> NoveltyModel:
    """Fit the novelty score.

    What another stain, lamp or focus changes is not new. So the spread within the classes is widened by
    how the same cells move when they are varied as in training. And what all classes share says less of a
    cell than of its laboratory: in hundreds of directions, which would drown the few that tell the classes
    apart. Weighting these down is what a relative Mahalanobis distance does (Ren et al. 2021), by degrees.

    Parameters
    ----------
    traces : ndarray of float32, shape (N, G)
        Of training cells, see `wbc_batch.classifier.architecture.Network.describe`.
    varied : ndarray of float32, shape (N, G)
        Of the same cells, varied as in training.
    labels : ndarray of int, shape (N,)
        Their classes, 0 to classes - 1, each present.
    known : ndarray of float32, shape (M, G)
        Traces of validation cells; a fraction `kept` of them gets a novelty of at most 1.
    kept : float

    Returns
    -------
    NoveltyModel
    """
    # In units of each channel's own spread; the whitening takes that up in the end.
    unit = traces.std(axis=0).astype(np.float64)
    unit = np.maximum(unit, 0.01 * unit.mean() or 1.0)  # channels that are the same everywhere
    scaled = traces / unit
    means = np.stack([scaled[labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)])
    spread = _scatter(scaled - means[labels]) + _TOLERANCE * _scatter((varied - traces) / unit)
    values, vectors = np.linalg.eigh(spread)
    values = np.maximum(values, 0.0) + _RIDGE * max(float(values.mean()), 1e-12)
    whitening = vectors / np.sqrt(values)
    whitening = whitening @ _weights(means @ whitening) / unit[:, np.newaxis]
    # Rounded as a bundle stores it, in range, so that the scale fits what will be used.
    whitening = (whitening * (_LARGEST / np.abs(whitening).max())).astype(np.float16)
    whitening = whitening.astype(np.float32)
    unscaled = NoveltyModel((means * unit).astype(np.float32) @ whitening, whitening, 1.0)
    scale = float(np.quantile(unscaled.score(known), kept)) or 1.0  # all cells alike
    return NoveltyModel(unscaled.means, whitening, scale)


def _weights(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix that shortens what is at right angles to all differences of some means."""
    _, _, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    telling = directions[: len(means) - 1]
    other = np.sqrt(_OTHER_DIRECTIONS)
    return other * np.eye(means.shape[1]) + (1.0 - other) * telling.T @ telling


def _scatter(differences: NDArray) -> NDArray[np.float64]:
    differences = differences.astype(np.float64)
    return differences.T @ differences / len(differences)
