"""What the size of the nucleus says of the class, beside what the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SizeEvidence", "fit_size_evidence"]

# The fraction of measured sizes that are wrong, and then anything: no size alone settles the class.
_ASTRAY = 0.05
# A normal distribution's standard deviation, in median deviations from the median.
_NORMAL = 1.4826
# Cells of a class in a data set that tell its usual size, at least.
_ENOUGH = 30


@dataclass(frozen=True)
class SizeEvidence:
    """How large the nuclei of each class are, in diameters of the red cells around them.

    Attributes
    ----------
    medians : tuple of float
        Of each class, diameters.
    spread : float
        Standard deviation of the logarithm within a class.
    """

    medians: tuple[float, ...]
    spread: float

    def log_likelihood(self, sizes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Say for which classes sizes speak.

        Parameters
        ----------
        sizes : ndarray of float32, shape (N,)
            `wbc_batch.classifier.preprocessing.CanonicalCrop.nucleus_size`, NaN where it is not known.

        Returns
        -------
        ndarray of float32, shape (N, classes)
            Natural logarithm, less its mean over the classes: to be added to that of calibrated
            probabilities (Bayes). 0 where the size is not known.
        """
        known = np.isfinite(sizes) & (sizes > 0)
        distance = np.log(np.where(known, sizes, 1.0))[:, None] - np.log(self.medians)
        likelihood = _ASTRAY + (1 - _ASTRAY) * np.exp(-0.5 * (distance / self.spread) ** 2)
        evidence = np.log(likelihood)
        evidence -= evidence.mean(axis=1, keepdims=True)
        return np.where(known[:, None], evidence, 0.0).astype(np.float32)


def fit_size_evidence(
    sizes: NDArray[np.float32],
    labels: NDArray[np.intp],
    names: Sequence[str],
    classes: int,
) -> SizeEvidence | None:
    """Learn how large nuclei are.

    Parameters
    ----------
    sizes : ndarray of float32, shape (N,)
        NaN where they are not known.
    labels : ndarray of int, shape (N,)
    names : sequence of str
        The data set of each cell: those that know the sizes of all classes count alike, however many cells
        they have; the others do not count.
    classes : int

    Returns
    -------
    SizeEvidence or None
        None where no data set knows enough sizes.
    """
    known, which = np.isfinite(sizes), np.array(names)
    centres, spreads = [], []
    for name in dict.fromkeys(names):
        values = [np.log(sizes[known & (which == name) & (labels == k)]) for k in range(classes)]
        if min(map(len, values)) >= _ENOUGH:
            middle = [np.median(some) for some in values]
            apart = zip(values, middle, strict=True)
            centres.append(middle)
            spreads.append([_NORMAL * np.median(np.abs(some - m)) for some, m in apart])
    if not centres:
        return None
    spread = float(np.sqrt(np.mean(np.square(spreads))))
    return SizeEvidence(tuple(np.exp(np.mean(centres, axis=0)).tolist()), max(spread, 0.05))
