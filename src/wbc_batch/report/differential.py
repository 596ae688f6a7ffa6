"""The differential: how many cells of each class a group holds, and how sure that is."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from wbc_batch.errors import InputError, RunError
from wbc_batch.report.tables import csv_file, unguard_text
from wbc_batch.schema import CLASSES, STATUS_ERROR, UNIDENTIFIED

__all__ = [
    "DIFFERENTIAL_COLUMNS",
    "ERROR",
    "LABELS",
    "Tally",
    "clopper_pearson",
    "differential",
    "read_differential",
    "write_differential",
]

#: The last row of a group: cells that could not be classified at all.
ERROR = "error"

#: The rows of every group, in order.
LABELS = (*CLASSES, UNIDENTIFIED, ERROR)

DIFFERENTIAL_COLUMNS = (
    "group",
    "label",
    "count",
    "percent",
    "lower",
    "upper",
    "mean_confidence",
    "median_confidence",
)

_TEXT = {"group", "label"}
_DTYPES = {
    name: "str" if name in _TEXT else "int64" if name == "count" else "float64"
    for name in DIFFERENTIAL_COLUMNS
}
_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
_SCHEMA = pa.schema([(name, _ARROW[dtype]) for name, dtype in _DTYPES.items()])


def differential(cells: pd.DataFrame) -> pd.DataFrame:
    """Count the cells of each class, per group.

    Parameters
    ----------
    cells : DataFrame
        One row per cell: ``label`` (a class or ``unidentified``) and ``confidence`` (0..1);
        optionally ``group`` (without it, one unnamed group) and ``status`` (``error`` marks cells
        that could not be classified, whatever their label). A cell without a label is an error too.

    Returns
    -------
    DataFrame
        One row per group and label: the groups in order of appearance; in each the five classes,
        ``unidentified``, ``error``. Columns:

        group, label, count
            The count is of cells.
        percent, lower, upper
            Share of the identified cells (those with one of the five classes), 0..100, and its
            exact binomial 95 % limits (`clopper_pearson`). NaN for ``unidentified`` and ``error``,
            and where no cell of the group was identified.
        mean_confidence, median_confidence
            NaN where there is no cell.

    Raises
    ------
    InputError
        If a column is missing or a label is none of the known ones.
    """
    tally = Tally()
    tally.add(cells)
    return tally.by_group()


def clopper_pearson(
    k: ArrayLike, n: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact binomial confidence limits of a proportion.

    The limits of Clopper and Pearson (Biometrika 26:404-413, 1934) as quantiles of the beta
    distribution: the lower is the ``(1 - level)/2`` quantile of Beta(k, n-k+1), the upper the
    ``(1 + level)/2`` quantile of Beta(k+1, n-k). Rümke tabulated them for leukocyte differentials
    (Triangle 4:154-158, 1960).

    Parameters
    ----------
    k : array_like of int
        Successes, ``0 <= k <= n``.
    n : array_like of int
        Trials; broadcasts against `k`.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    lower, upper : ndarray of float64
        Proportions, 0..1; NaN where ``n`` is 0.

    Raises
    ------
    ValueError
        If a count is out of range or `level` not between 0 and 1.
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level must lie between 0 and 1, not {level}")
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("successes must lie between 0 and the number of trials")
    tail = (1.0 - level) / 2.0
    lower = np.where(k == 0, 0.0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1))
    upper = np.where(k == n, 1.0, stats.beta.isf(tail, k + 1, np.maximum(n - k, 1)))
    return np.where(n > 0, lower, np.nan), np.where(n > 0, upper, np.nan)


class Tally:
    """Counts cells part by part, so that a run of any length needs no more than 4 bytes per cell.

    Those 4 bytes are the confidences (float32), without which no exact median is to be had.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._confidences: dict[tuple[str, str], list[NDArray[np.float32]]] = {}

    def add(self, cells: pd.DataFrame) -> None:
        """Count some more cells; see `differential` for the columns."""
        missing = {"label", "confidence"} - set(cells.columns)
        if missing:
            raise InputError(
                f"the table of cells has no column {', '.join(sorted(missing))}; "
                "classify the cells first"
            )
        labels = _labels(cells)
        groups = pd.Series("", cells.index, dtype=object)
        if "group" in cells:
            groups = cells["group"].astype(object).where(cells["group"].notna(), "")
        confidences = pd.to_numeric(cells["confidence"]).astype(np.float32)
        for (group, label), part in confidences.groupby([groups, labels], sort=False):
            counts = self._counts.setdefault(str(group), dict.fromkeys(LABELS, 0))
            counts[str(label)] += len(part)
            known = part.dropna().to_numpy(np.float32)
            if len(known):
                self._confidences.setdefault((str(group), str(label)), []).append(known)

    def by_group(self) -> pd.DataFrame:
        """Return the differential of each group, as `differential` describes it."""
        return _table([row for group in self._counts for row in self._rows(group, [group])])

    def overall(self) -> pd.DataFrame:
        """Return the differential of all cells together; same columns, unnamed group."""
        return _table(self._rows("", list(self._counts)))

    def _rows(self, name: str, groups: Sequence[str]) -> Iterator[tuple]:
        counts = {label: sum(self._counts[group][label] for group in groups) for label in LABELS}
        identified = sum(counts[label] for label in CLASSES)
        for label in LABELS:
            share = _share(counts[label], identified) if label in CLASSES else (np.nan,) * 3
            parts = [part for group in groups for part in self._confidences.get((group, label), ())]
            values = np.concatenate(parts) if parts else np.full(1, np.nan, np.float32)
            mean, median = values.mean(dtype=np.float64), np.median(values)
            yield name, label, counts[label], *share, mean, median


def write_differential(path: Path, table: pd.DataFrame) -> None:
    """Write a differential as CSV; see `wbc_batch.report.tables` for the conventions."""
    with csv_file(path, _SCHEMA) as append:
        append(pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False))


def read_differential(path: Path) -> pd.DataFrame:
    """Read what `write_differential` wrote.

    Raises
    ------
    RunError
        If the file is not there or is not a differential.
    """
    text = {"group": str, "label": str}
    try:
        table = pd.read_csv(path, dtype=text, na_values=[""], keep_default_na=False)
        table = table.loc[:, list(DIFFERENTIAL_COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: this is not a differential that can be read ({error})") from error
    return table.assign(group=table["group"].fillna("").map(unguard_text))


def _table(rows: Iterable[tuple]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(DIFFERENTIAL_COLUMNS)).astype(_DTYPES)


def _share(count: int, total: int) -> tuple[float, float, float]:
    """Percentage and its limits."""
    if total == 0:
        return (np.nan,) * 3
    lower, upper = clopper_pearson(count, total)
    return 100.0 * count / total, 100.0 * float(lower), 100.0 * float(upper)


def _labels(cells: pd.DataFrame) -> pd.Series:
    """Return the label of each cell, with `ERROR` for those that were not classified."""
    labels = cells["label"].astype(object).where(cells["label"].notna(), ERROR).replace("", ERROR)
    if "status" in cells:
        labels = labels.where(cells["status"] != STATUS_ERROR, ERROR)
    unknown = set(labels) - set(LABELS)
    if unknown:
        raise InputError(
            f"the label {min(unknown, key=str)!r} is none of {', '.join(LABELS[:-1])}; "
            "a differential can be made of these only"
        )
    return labels
