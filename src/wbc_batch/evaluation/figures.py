"""How good a model is on labelled cells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier import Classifier, Predictions
from wbc_batch.classifier.calibration import expected_calibration_error
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.report.agreement import ClassFigures, class_figures, count_codes
from wbc_batch.report.limits import exact_limits
from wbc_batch.schema import CLASSES, UNIDENTIFIED

__all__ = [
    "COVERAGES",
    "CoveragePoint",
    "Evaluation",
    "Judged",
    "KindFigures",
    "ReliabilityBin",
    "judge",
    "measure",
]

#: Fractions of the cells, most confident first, whose accuracy cards and tables state.
COVERAGES = (1.0, 0.95, 0.9, 0.8)

_BINS = 15
_NAN = float("nan")

# What the leading letters of PBC's file names say of a neutrophil.
_NEUTROPHILS = {"BNE": "band", "SNE": "segmented"}


@dataclass(frozen=True)
class KindFigures:
    """How many cells of one kind within a class are recognised as that class.

    Attributes
    ----------
    cells : int
    recall : float
    recall_limits : tuple of float
        See `wbc_batch.report.limits.exact_limits`.
    """

    cells: int
    recall: float
    recall_limits: tuple[float, float]


@dataclass(frozen=True)
class ReliabilityBin:
    """Cells whose confidence lies between `lower` and `upper`, and how many of them are right.

    Attributes
    ----------
    lower, upper : float
    cells : int
    confidence, accuracy : float
        Means; NaN without cells.
    """

    lower: float
    upper: float
    cells: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class CoveragePoint:
    """Accuracy of the most confident cells alone.

    Attributes
    ----------
    coverage : float
        Fraction of the cells that is kept.
    accuracy : float
    confidence : float
        The lowest among the cells kept.
    """

    coverage: float
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one data set. Accuracy counts the best guess of every cell, also of unidentified ones.

    Attributes
    ----------
    cells : int
    accuracy : float
    accuracy_limits : tuple of float
        See `wbc_batch.report.limits.exact_limits`.
    balanced_accuracy : float
        Mean recall of the classes that are there.
    macro_f1 : float
        Mean F1 of the classes that are there.
    calibration_error : float
        Expected calibration error over 15 bins.
    log_loss : float
        Mean negative logarithm of the probability given to the true class.
    identified : float
        Fraction of the cells that are not left unidentified.
    accuracy_identified : float
        Accuracy among those.
    classes : dict of str to ClassFigures
    neutrophils : dict of str to KindFigures
        ``band`` and ``segmented``, where file names tell them (``BNE``, ``SNE``, as in PBC).
    neutrophils_balanced : float
        Mean recall of these two kinds; NaN where one is missing.
    confusion : list of list of int
        Cells by true class (rows) and predicted class (columns), in the order of `CLASSES`.
    confusion_identified : list of list of int
        The same of the cells that are not left unidentified.
    reliability : list of ReliabilityBin
        Rising in confidence.
    coverage : list of CoveragePoint
        From all cells down to one in a hundred.
    """

    cells: int
    accuracy: float
    accuracy_limits: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    log_loss: float
    identified: float
    accuracy_identified: float
    classes: dict[str, ClassFigures]
    neutrophils: dict[str, KindFigures]
    neutrophils_balanced: float
    confusion: list[list[int]]
    confusion_identified: list[list[int]]
    reliability: list[ReliabilityBin]
    coverage: list[CoveragePoint]

    def accuracy_at(self, coverage: float) -> float:
        """Accuracy of this fraction of the cells, the most confident ones; a whole per cent."""
        return self.coverage[100 - round(100 * coverage)].accuracy


@dataclass(frozen=True)
class Judged:
    """Labelled cells, what a model says of them, and how good that is."""

    cells: LabelledCells
    predictions: Predictions
    evaluation: Evaluation


def judge(classifier: Classifier, cells: LabelledCells) -> Judged:
    """Classify labelled cells and measure.

    Parameters
    ----------
    classifier : Classifier
    cells : LabelledCells
        Prepared with ``classifier.bundle.preprocessing``.

    Returns
    -------
    Judged
    """
    predictions = classifier.predict_prepared(cells.crops, cells.sizes)
    return Judged(cells, predictions, measure(predictions, cells.labels, cells.members))


def measure(
    predictions: Predictions, labels: NDArray[np.intp], members: Sequence[str] = ()
) -> Evaluation:
    """Hold predictions against the truth.

    Parameters
    ----------
    predictions : Predictions
    labels : ndarray of int, shape (N,)
        Index into `wbc_batch.schema.CLASSES`; N > 0.
    members : sequence of str, optional
        The cells' files, for what their names tell.

    Returns
    -------
    Evaluation
    """
    probabilities = predictions.probabilities
    guess = probabilities.argmax(axis=1)
    confusion = count_codes(labels, guess, len(CLASSES))
    figures = dict(zip(CLASSES, class_figures(confusion), strict=True))
    there = [f for f in figures.values() if f.cells]
    correct = guess == labels
    identified = predictions.label != UNIDENTIFIED
    confidence = probabilities.max(axis=1)
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    neutrophils = _neutrophils(correct, labels, members)
    return Evaluation(
        cells=len(labels),
        accuracy=float(correct.mean()),
        accuracy_limits=exact_limits(int(correct.sum()), len(labels)),
        balanced_accuracy=float(np.mean([f.recall for f in there])),
        macro_f1=float(np.mean([f.f1 for f in there])),
        calibration_error=expected_calibration_error(probabilities, labels, _BINS),
        # A float32 of 0 stands for anything below its resolution.
        log_loss=float(-np.log(np.maximum(given, np.finfo(np.float32).tiny)).mean()),
        identified=float(identified.mean()),
        accuracy_identified=float(correct[identified].mean()) if identified.any() else _NAN,
        classes=figures,
        neutrophils=neutrophils,
        neutrophils_balanced=float(np.mean([kind.recall for kind in neutrophils.values()]))
        if len(neutrophils) == len(_NEUTROPHILS)
        else _NAN,
        confusion=confusion.tolist(),
        confusion_identified=count_codes(
            labels[identified], guess[identified], len(CLASSES)
        ).tolist(),
        reliability=_reliability(confidence, correct),
        coverage=_coverage(confidence, correct),
    )


def _neutrophils(
    correct: NDArray[np.bool_], labels: NDArray[np.intp], members: Sequence[str]
) -> dict[str, KindFigures]:
    hits: dict[str, list[bool]] = {kind: [] for kind in _NEUTROPHILS.values()}
    for right, label, member in zip(correct.tolist(), labels.tolist(), members, strict=False):
        kind = _NEUTROPHILS.get(re.sub("[^A-Za-z].*", "", PurePosixPath(member).name))
        if kind and CLASSES[label] == "neutrophil":
            hits[kind].append(right)
    return {
        kind: KindFigures(len(them), float(np.mean(them)), exact_limits(sum(them), len(them)))
        for kind, them in hits.items()
        if them
    }


def _reliability(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_]
) -> list[ReliabilityBin]:
    """Split the cells as `expected_calibration_error` does."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for number in range(_BINS):
        here = place == number
        mean = float(confidence[here].mean()) if here.any() else _NAN
        right = float(correct[here].mean()) if here.any() else _NAN
        lower, upper = number / _BINS, (number + 1) / _BINS
        bins.append(ReliabilityBin(lower, upper, int(here.sum()), mean, right))
    return bins


def _coverage(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> list[CoveragePoint]:
    """Give the accuracy-coverage curve (El-Yaniv and Wiener 2010), by whole per cent of the cells."""
    levels, place = np.unique(-confidence, return_inverse=True)
    # Cells of equal confidence count by their mean: their order says nothing.
    even = np.bincount(place, correct) / np.bincount(place)
    order = np.sort(place)
    accuracy = np.cumsum(even[order]) / np.arange(1, len(order) + 1)
    points = []
    for percent in range(100, 0, -1):
        last = -(-percent * len(order) // 100) - 1
        lowest = float(-levels[order[last]])
        points.append(CoveragePoint(percent / 100, float(accuracy[last]), lowest))
    return points
