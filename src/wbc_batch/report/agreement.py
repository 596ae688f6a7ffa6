"""How far two sets of labels of the same cells agree: model and reviewer, model and truth, two runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from wbc_batch.errors import InputError
from wbc_batch.report.limits import exact_limits
from wbc_batch.schema import LABELS

__all__ = [
    "Agreement",
    "ClassFigures",
    "agreement",
    "class_figures",
    "cohen_kappa",
    "count_codes",
    "count_pairs",
    "count_pairs_in",
]

_NAN = float("nan")


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is told from the others: fractions of 1, NaN where nothing is counted.

    Attributes
    ----------
    cells : int
        Cells that are of this class.
    recall, precision, f1 : float
    recall_limits, precision_limits : tuple of float
        See `wbc_batch.report.limits.exact_limits`.
    """

    cells: int
    recall: float
    precision: float
    f1: float
    recall_limits: tuple[float, float]
    precision_limits: tuple[float, float]


@dataclass(frozen=True)
class Agreement:
    """Pairs of labels, counted.

    Attributes
    ----------
    table : ndarray of int64, shape (6, 6)
        Cells by first label (rows) and second label (columns): the five classes in their order, then
        ``unidentified``.
    """

    table: NDArray[np.int64]

    @property
    def cells(self) -> int:
        """Cells with both labels."""
        return int(self.table.sum())

    @property
    def agreeing(self) -> int:
        """Cells whose labels are the same; ``unidentified`` counts as a label."""
        return int(self.table.trace())

    @property
    def fraction(self) -> float:
        """Share of `agreeing` among `cells`, 0..1."""
        return self.agreeing / self.cells if self.cells else _NAN

    @property
    def limits(self) -> tuple[float, float]:
        """Exact 95 % limits of `fraction`."""
        return exact_limits(self.agreeing, self.cells)

    @property
    def kappa(self) -> float:
        """Cohen's kappa over the six labels, see `cohen_kappa`."""
        return cohen_kappa(self.table)

    @property
    def identified(self) -> "Agreement":
        """The same of the cells that both sides identified; the last row and column are empty."""
        table = self.table.copy()
        table[-1] = table[:, -1] = 0
        return Agreement(table)


def agreement(
    first: Sequence[str] | pd.Series | NDArray, second: Sequence[str] | pd.Series | NDArray
) -> Agreement:
    """Compare two labels of each cell.

    Parameters
    ----------
    first, second : sequence of str, shape (N,)
        A class or ``unidentified``; pairs with a missing or empty label do not count.

    Returns
    -------
    Agreement

    Raises
    ------
    InputError
        If a label is none of the known ones.
    """
    return Agreement(count_pairs(first, second))


def count_pairs(
    first: Sequence[str] | pd.Series | NDArray, second: Sequence[str] | pd.Series | NDArray
) -> NDArray[np.int64]:
    """Count pairs of labels: what `agreement` is made of, to be added up part by part.

    Returns
    -------
    ndarray of int64, shape (6, 6)
        See `Agreement`.
    """
    (table,) = count_pairs_in(np.zeros(len(first), np.intp), 1, first, second)
    return table


def count_pairs_in(
    groups: NDArray[np.intp],
    count: int,
    first: Sequence[str] | pd.Series | NDArray,
    second: Sequence[str] | pd.Series | NDArray,
) -> NDArray[np.int64]:
    """Count pairs of labels in each of some groups.

    Parameters
    ----------
    groups : ndarray of int, shape (N,)
        The group of each pair, 0 to count - 1.
    count : int
    first, second : sequence of str, shape (N,)
        See `agreement`.

    Returns
    -------
    ndarray of int64, shape (count, 6, 6)
        See `Agreement`.
    """
    rows, columns = _codes(first), _codes(second)
    both = (rows >= 0) & (columns >= 0)
    tables = np.zeros((count, len(LABELS), len(LABELS)), np.int64)
    np.add.at(tables, (groups[both], rows[both], columns[both]), 1)
    return tables


def count_codes(rows: NDArray[np.intp], columns: NDArray[np.intp], kinds: int) -> NDArray[np.int64]:
    """Count pairs of codes.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (N,)
        From 0 up to, not including, `kinds`.
    kinds : int

    Returns
    -------
    ndarray of int64, shape (kinds, kinds)
    """
    table = np.zeros((kinds, kinds), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def class_figures(table: NDArray[np.int64]) -> list[ClassFigures]:
    """Measure how well each class is told from the others.

    Parameters
    ----------
    table : ndarray of int64, shape (K, K)
        Cells by true class (rows) and given class (columns).

    Returns
    -------
    list of ClassFigures
        One for each class.
    """
    return [
        ClassFigures(
            cells=there,
            recall=hits / there if there else _NAN,
            precision=hits / given if given else _NAN,
            f1=2 * hits / (there + given) if there else _NAN,
            recall_limits=exact_limits(hits, there),
            precision_limits=exact_limits(hits, given),
        )
        for hits, there, given in zip(
            table.diagonal().tolist(),
            table.sum(axis=1).tolist(),
            table.sum(axis=0).tolist(),
            strict=True,
        )
    ]


def cohen_kappa(table: ArrayLike) -> float:
    """Agreement beyond chance.

    Cohen (Educational and Psychological Measurement 20:37-46, 1960): ``(p_o - p_e) / (1 - p_e)``, where
    p_o is the share of agreeing pairs and p_e the share that would agree by chance if both sides kept
    their frequencies of labels.

    Parameters
    ----------
    table : array_like of int, shape (K, K)
        Pairs by first and second label.

    Returns
    -------
    float
        1 for full agreement, 0 for what chance gives; NaN where nothing is counted, or where both
        sides know a single label only, so that chance explains all.
    """
    table = np.asarray(table, float)
    total = table.sum()
    if total == 0:
        return _NAN
    observed = table.trace() / total
    expected = float((table.sum(axis=0) * table.sum(axis=1)).sum()) / total**2
    return float((observed - expected) / (1.0 - expected)) if expected < 1.0 else _NAN


def _codes(labels: Sequence[str] | pd.Series | NDArray) -> NDArray[np.intp]:
    """Places of labels in `LABELS`; -1 for a missing one."""
    values = pd.Series(np.asarray(labels, dtype=object))
    known = values.notna() & (values != "")
    codes = values.map({label: code for code, label in enumerate(LABELS)})
    unknown = values[known & codes.isna()]
    if len(unknown):
        raise InputError(f"the label {unknown.iloc[0]!r} is not one of {', '.join(LABELS)}")
    return np.asarray(codes.fillna(-1), np.intp)
