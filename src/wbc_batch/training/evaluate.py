"""How good a model is on labelled cells."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier import Classifier, Predictions
from wbc_batch.classifier.calibration import expected_calibration_error
from wbc_batch.schema import CLASSES, UNIDENTIFIED
from wbc_batch.training.datasets import LabelledCells

__all__ = ["ClassFigures", "Evaluation", "evaluate", "measure"]


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class: fractions of 1, NaN where nothing is counted.

    Attributes
    ----------
    cells : int
        Cells that are of this class.
    precision, recall, f1 : float
    """

    cells: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one data set. Accuracy counts the best guess of every cell, also of unidentified ones.

    Attributes
    ----------
    cells : int
    accuracy : float
    balanced_accuracy : float
        Mean recall of the classes that are there.
    macro_f1 : float
        Mean F1 of the classes that are there.
    calibration_error : float
        Expected calibration error over 15 bins.
    identified : float
        Fraction of the cells that are not left unidentified.
    accuracy_identified : float
        Accuracy among those.
    classes : dict of str to ClassFigures
    confusion : list of list of int
        Cells by true class (rows) and predicted class (columns), in the order of `CLASSES`.
    """

    cells: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    identified: float
    accuracy_identified: float
    classes: dict[str, ClassFigures]
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN becomes None."""
        return _without_nan(asdict(self))


def evaluate(classifier: Classifier, cells: LabelledCells) -> Evaluation:
    """Classify labelled cells and measure.

    Parameters
    ----------
    classifier : Classifier
    cells : LabelledCells
        Prepared with ``classifier.bundle.preprocessing``.

    Returns
    -------
    Evaluation
    """
    return measure(classifier.predict_prepared(cells.crops), cells.labels)


def measure(predictions: Predictions, labels: NDArray[np.intp]) -> Evaluation:
    """Hold predictions against the truth.

    Parameters
    ----------
    predictions : Predictions
    labels : ndarray of int, shape (N,)
        Index into `wbc_batch.schema.CLASSES`; N > 0.

    Returns
    -------
    Evaluation
    """
    guess = predictions.probabilities.argmax(axis=1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(confusion, (labels, guess), 1)
    figures = {name: _figures(confusion, k) for k, name in enumerate(CLASSES)}
    there = [f for f in figures.values() if f.cells]
    correct = guess == labels
    identified = predictions.label != UNIDENTIFIED
    return Evaluation(
        cells=len(labels),
        accuracy=float(correct.mean()),
        balanced_accuracy=float(np.mean([f.recall for f in there])),
        macro_f1=float(np.mean([f.f1 for f in there])),
        calibration_error=expected_calibration_error(predictions.probabilities, labels),
        identified=float(identified.mean()),
        accuracy_identified=float(correct[identified].mean()) if identified.any() else float("nan"),
        classes=figures,
        confusion=confusion.tolist(),
    )


def _figures(confusion: NDArray[np.int64], k: int) -> ClassFigures:
    hits, there, said = confusion[k, k], confusion[k].sum(), confusion[:, k].sum()
    nan = float("nan")
    return ClassFigures(
        cells=int(there),
        precision=float(hits / said) if said else nan,
        recall=float(hits / there) if there else nan,
        f1=float(2 * hits / (there + said)) if there else nan,
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value
