"""Cells outside the five classes, and whether a model sees that they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from wbc_batch.classifier import Classifier, Predictions, Rejection
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.labelled import read_entries
from wbc_batch.datasets.manifest import Entry, ManifestPart, read_manifest
from wbc_batch.errors import InputError
from wbc_batch.evaluation.figures import Judged
from wbc_batch.report.limits import exact_limits
from wbc_batch.schema import CLASSES, UNIDENTIFIED
from wbc_batch.sources import list_cells

__all__ = [
    "JudgedUnknown",
    "Separation",
    "UnknownCells",
    "UnknownEvaluation",
    "UnknownFigures",
    "auroc",
    "judge_unknown",
    "read_unknown",
]


@dataclass(frozen=True)
class UnknownCells:
    """Cells that are of none of the five classes.

    Attributes
    ----------
    name : str
        Of the data set.
    members : tuple of str
        Each cell's file inside its folder.
    kinds : tuple of str
        What each cell is: the folder it lies in.
    crops : ndarray of uint8, shape (N, S, S, 3)
        Canonical crops.
    sizes : ndarray of float32, shape (N,)
        Of their nuclei.
    """

    name: str
    members: tuple[str, ...]
    kinds: tuple[str, ...]
    crops: NDArray[np.uint8]
    sizes: NDArray[np.float32]


@dataclass(frozen=True)
class Separation:
    """How well unknown cells are told from the known ones of one data set: areas under the ROC curve.

    Attributes
    ----------
    novelty : float
        Ranked by the novelty score alone.
    confidence : float
        Ranked by falling confidence alone.
    rejection : float
        Ranked by whichever of the two comes nearer its threshold, or goes further beyond: the decision
        that leaves a cell unidentified, at every strictness.
    """

    novelty: float
    confidence: float
    rejection: float


@dataclass(frozen=True)
class UnknownFigures:
    """Figures of unknown cells.

    Attributes
    ----------
    cells : int
    unidentified : float
        Fraction that is left unidentified, as it should be.
    unidentified_limits : tuple of float
        See `wbc_batch.report.limits.exact_limits`.
    auroc : dict of str to Separation
        By data set of known cells.
    """

    cells: int
    unidentified: float
    unidentified_limits: tuple[float, float]
    auroc: dict[str, Separation]


@dataclass(frozen=True)
class UnknownEvaluation:
    """Figures of a folder of unknown cells, all together and kind by kind."""

    overall: UnknownFigures
    kinds: dict[str, UnknownFigures]


@dataclass(frozen=True)
class JudgedUnknown:
    """Unknown cells, what a model says of them, and whether it holds them for known ones."""

    cells: UnknownCells
    predictions: Predictions
    evaluation: UnknownEvaluation


def read_unknown(
    name: str, dataset: Path | ManifestPart, preprocessing: Preprocessing
) -> UnknownCells:
    """Read cells outside the classes.

    Parameters
    ----------
    name : str
        What to call the data set.
    dataset : Path or ManifestPart
        A folder, whose subfolders, if any, say what the cells are; or a part of a prepared data set.
    preprocessing : Preprocessing

    Raises
    ------
    InputError
        If the data set is missing or empty, a cell is of one of the classes, or an image cannot be read or is
        not the one that was prepared.
    """
    entries = _list(name, dataset)
    for entry in entries:
        if entry.label.casefold() in CLASSES:
            raise InputError(
                f"{entry.path} is labeled {entry.label}, which is one of the classes; "
                "give only cells of no class with --unknown"
            )
    crops, sizes, _ = read_entries(entries, preprocessing)
    members = tuple(entry.member for entry in entries)
    return UnknownCells(name, members, tuple(entry.label for entry in entries), crops, sizes)


def judge_unknown(
    classifier: Classifier, cells: UnknownCells, known: Mapping[str, Judged]
) -> JudgedUnknown:
    """Classify unknown cells and hold them against known ones.

    Parameters
    ----------
    classifier : Classifier
    cells : UnknownCells
        Prepared with ``classifier.bundle.preprocessing``.
    known : mapping of str to Judged
        Data sets of known cells, judged by the same classifier.

    Returns
    -------
    JudgedUnknown
    """
    predictions = classifier.predict_prepared(cells.crops, cells.sizes)
    rejection = classifier.bundle.rejection
    kinds = np.array(cells.kinds)

    def figures(which: NDArray[np.bool_]) -> UnknownFigures:
        left = predictions.label[which] == UNIDENTIFIED
        return UnknownFigures(
            int(which.sum()),
            float(left.mean()),
            exact_limits(int(left.sum()), int(which.sum())),
            {
                name: _separation(judged.predictions, predictions, which, rejection)
                for name, judged in known.items()
            },
        )

    evaluation = UnknownEvaluation(
        figures(np.ones(len(kinds), bool)),
        {str(kind): figures(kinds == kind) for kind in np.unique(kinds)},
    )
    return JudgedUnknown(cells, predictions, evaluation)


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Area under the ROC curve: how often an unknown cell scores above a known one (ties: half).

    The Mann-Whitney statistic, see Hanley and McNeil, Radiology 143:29-36 (1982).

    Parameters
    ----------
    known : ndarray of float, shape (N,)
    unknown : ndarray of float, shape (M,)

    Returns
    -------
    float
        0.5 is chance, 1 is perfect.
    """
    ranks = rankdata(np.concatenate([known, unknown]))[len(known) :]
    pairs = len(known) * len(unknown)
    return float((ranks.sum() - len(unknown) * (len(unknown) + 1) / 2) / pairs)


def _separation(
    known: Predictions, unknown: Predictions, which: NDArray[np.bool_], rejection: Rejection
) -> Separation:
    return Separation(
        novelty=auroc(known.novelty, unknown.novelty[which]),
        confidence=auroc(-known.confidence, -unknown.confidence[which]),
        rejection=auroc(_doubt(known, rejection), _doubt(unknown, rejection)[which]),
    )


def _doubt(predictions: Predictions, rejection: Rejection) -> NDArray[np.floating]:
    """Return what is above 1 exactly where the cell is left unidentified."""
    return np.fmax(  # without a novelty score, confidence alone
        predictions.novelty / rejection.max_novelty,
        rejection.min_confidence / predictions.confidence,
    )


def _list(name: str, dataset: Path | ManifestPart) -> list[Entry]:
    """List the cells, with what each is as its label."""
    if isinstance(dataset, ManifestPart):
        return read_manifest(dataset.manifest).select(dataset.split, dataset.source)
    places = [(Path(c.source, c.member), c.member, c.group) for c in list_cells([dataset])]
    return [Entry(p, m, PurePosixPath(g).name, name, "", "", "") for p, m, g in places]
