"""What the classifier says of each cell, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wbc_batch.schema import CLASSES, PROBABILITY_COLUMNS, UNIDENTIFIED

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictions", "Rejection", "decide"]


@dataclass(frozen=True)
class Rejection:
    """When a cell is left unidentified.

    Attributes
    ----------
    min_confidence : float
        Below this calibrated probability of the best class.
    max_novelty : float
        Above this novelty. Novelty is 1 where 99 % of the validation cells lie below.
    """

    min_confidence: float = 0.5
    max_novelty: float = 1.0


@dataclass(frozen=True)
class Predictions:
    """Predictions for N cells, in the order of the images.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (N, 5)
        Calibrated, in the order of `wbc_batch.schema.CLASSES`; each row sums to 1.
    predicted : ndarray of str, shape (N,)
        The most probable class.
    label : ndarray of str, shape (N,)
        The same, or ``unidentified`` where the model should not decide.
    confidence : ndarray of float32, shape (N,)
        Probability of `predicted`.
    margin : ndarray of float32, shape (N,)
        Its distance to the second most probable class.
    novelty : ndarray of float32, shape (N,)
        How unlike the training cells the cell is; 1 is the limit that 99 % of the validation cells keep.
        NaN where the model has no novelty score.
    """

    probabilities: NDArray[np.float32]
    predicted: NDArray[np.str_]
    label: NDArray[np.str_]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    novelty: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell, with the columns of ``cells.csv`` from ``label`` to ``prob_*``."""
        import pandas as pd

        columns = {
            "label": self.label,
            "predicted": self.predicted,
            "confidence": self.confidence,
            "margin": self.margin,
            "novelty": self.novelty,
        }
        probabilities = dict(zip(PROBABILITY_COLUMNS, self.probabilities.T, strict=True))
        return pd.DataFrame(columns | probabilities)


def decide(
    logits: NDArray[np.float32],
    novelty: NDArray[np.float32] | None,
    temperature: float,
    rejection: Rejection,
) -> Predictions:
    """Turn logits and novelties into predictions.

    Parameters
    ----------
    logits : ndarray of float32, shape (N, 5)
    novelty : ndarray of float32, shape (N,), or None
        None where the model has no novelty score: then confidence alone decides.
    temperature : float
        The logits are divided by it (Guo et al. 2017, temperature scaling).
    rejection : Rejection

    Returns
    -------
    Predictions
    """
    scaled = logits.astype(np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    ordered = np.sort(probabilities, axis=1)
    confidence, second = ordered[:, -1], ordered[:, -2]
    predicted = np.asarray(CLASSES)[probabilities.argmax(axis=1)]
    # Said this way round, numbers that are none leave a cell unidentified, too.
    sure = confidence >= rejection.min_confidence
    if novelty is None:
        novelty = np.full(len(logits), np.nan, np.float32)
    else:
        sure &= novelty <= rejection.max_novelty
    label = np.where(sure, predicted, UNIDENTIFIED)
    return Predictions(
        probabilities, predicted, label, confidence, confidence - second, novelty.astype(np.float32)
    )
