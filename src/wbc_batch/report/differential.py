"""The differential: how many cells of each class a group holds, and how sure that is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from wbc_batch.errors import InputError, RunError
from wbc_batch.report.confusion import Confusion
from wbc_batch.report.limits import clopper_pearson, confusion_limits
from wbc_batch.report.tables import csv_file, parquet_file, unguard_text
from wbc_batch.schema import CLASSES, LABELS, STATUS_ERROR

__all__ = [
    "BINS",
    "DIFFERENTIAL_COLUMNS",
    "MAX_NOVELTY",
    "ROWS",
    "Tally",
    "by_group",
    "differential",
    "read_differential",
    "write_differential",
]

#: The rows of every group, in order; the last are cells that could not be classified at all.
ROWS = (*LABELS, STATUS_ERROR)

#: Bins of a histogram of confidences, from 0 to 1.
BINS = 40

#: A cell with a higher novelty is unlike the training data, as are 1 % of the validation cells.
MAX_NOVELTY = 1.0

_TEXT = ("group", "label")
_WHOLE = ("count", "unlike")

DIFFERENTIAL_COLUMNS = (
    "group",
    "label",
    "count",
    "percent",
    "lower",
    "upper",
    "mean_confidence",
    "median_confidence",
    "confusion_lower",
    "confusion_upper",
    "absolute",
    "absolute_lower",
    "absolute_upper",
    "absolute_confusion_lower",
    "absolute_confusion_upper",
    "unlike",
)

_DTYPES = {
    name: "str" if name in _TEXT else "int64" if name in _WHOLE else "float64"
    for name in DIFFERENTIAL_COLUMNS
}
_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
_SCHEMA = pa.schema([(name, _ARROW[dtype]) for name, dtype in _DTYPES.items()])


def differential(
    cells: pd.DataFrame,
    confusion: Confusion | None = None,
    wbc_counts: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Count the cells of each class, per group.

    Parameters
    ----------
    cells : DataFrame
        One row per cell: ``label`` (a class or ``unidentified``) and ``confidence`` (0..1);
        optionally ``group`` (without it, one unnamed group), ``status`` (``error`` marks cells
        that could not be classified, whatever their label) and ``novelty``. A cell without a label is an
        error too.
    confusion : Confusion, optional
        How the model confuses the classes (`wbc_batch.report.confusion_of`).
    wbc_counts : mapping of str to float, optional
        White blood cells by group, 10^9 per litre.

    Returns
    -------
    DataFrame
        One row per group and label: the groups in order of appearance; in each the five classes,
        ``unidentified``, ``error``. Columns:

        group, label, count
            The count is of cells.
        percent, lower, upper
            Share of the identified cells (those with one of the five classes), 0..100, and its
            exact binomial 95 % limits (`wbc_batch.report.clopper_pearson`). NaN for ``unidentified`` and
            ``error``, and where no cell of the group was identified.
        mean_confidence, median_confidence
            Of the cells that have a confidence; NaN where there is none.
        confusion_lower, confusion_upper
            95 % limits that carry the classifier's confusion, too, 0..100
            (`wbc_batch.report.confusion_limits`). NaN without `confusion`.
        absolute, absolute_lower, ..., absolute_confusion_upper
            Percentage and limits of the group's white blood cell count, 10^9 per litre; the count itself is
            taken as exact. NaN where it is not given.
        unlike
            Cells with a novelty above `MAX_NOVELTY`.

    Raises
    ------
    InputError
        If a column is missing or a label is none of the known ones.
    """
    tally = Tally()
    tally.add(cells)
    return tally.by_group(confusion, wbc_counts)


def by_group(table: pd.DataFrame, most: int) -> dict[str, pd.DataFrame]:
    """Return the rows of each of the first groups of a differential, at most so many groups."""
    first = table.iloc[: most * len(ROWS)]
    return {str(group): rows for group, rows in first.groupby("group", sort=False)}


class Tally:
    """Counts cells part by part, so that a run of any length needs few bytes per cell.

    They are the confidences (float32), without which no exact median is to be had: 4 bytes where the cells of
    a group come one after the other, 16 where every cell is of another group than the one before.
    """

    def __init__(self) -> None:
        # By group: cells of each of `ROWS`, and how many of them are unlike the training data.
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._unlike: dict[str, NDArray[np.int64]] = {}
        self._numbers: dict[str, int] = {}
        self._confidences = _Confidences()

    def add(self, cells: pd.DataFrame) -> None:
        """Count some more cells; see `differential` for the columns."""
        missing = {"label", "confidence"} - set(cells.columns)
        if missing:
            raise InputError(
                f"the table of cells has no column {', '.join(sorted(missing))}; "
                "classify the cells first"
            )
        codes, names = _groups(cells)
        rows = pd.Index(ROWS).get_indexer(pd.Index(_labels(cells)))
        kinds = codes * len(ROWS) + rows
        unlike = np.zeros(len(cells), bool)
        if "novelty" in cells:
            unlike = (pd.to_numeric(cells["novelty"]) > MAX_NOVELTY).to_numpy()
        _add(self._counts, names, kinds)
        _add(self._unlike, names, kinds[unlike])
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        confidence = pd.to_numeric(cells["confidence"]).to_numpy(np.float32)
        known = ~np.isnan(confidence)
        groups = np.array(numbers, np.int32)[codes[known]]
        self._confidences.add(groups, rows[known], confidence[known])

    @property
    def groups(self) -> list[str]:
        """Groups in order of appearance."""
        return list(self._counts)

    def by_group(
        self, confusion: Confusion | None = None, wbc_counts: Mapping[str, float] | None = None
    ) -> pd.DataFrame:
        """Return the differential of each group, as `differential` describes it."""
        each = np.arange(len(self._counts), dtype=np.int32)
        return self._table(self.groups, each, confusion, wbc_counts or {})

    def overall(self) -> pd.DataFrame:
        """Return the differential of all cells together; same columns, unnamed group."""
        return self._table([""], np.zeros(len(self._counts), np.int32), None, {})

    def histogram(self, label: str) -> NDArray[np.int64]:
        """Cells of one label, in all groups, by confidence in `BINS` bins from 0 to 1."""
        _, confidences = self._confidences.of(ROWS.index(label))
        return np.histogram(confidences, BINS, (0.0, 1.0))[0]

    def _table(
        self,
        parts: Sequence[str],
        part_of: NDArray[np.int32],
        confusion: Confusion | None,
        wbc_counts: Mapping[str, float],
    ) -> pd.DataFrame:
        """Make the table of some parts, where each group, by its number, belongs to one."""
        counts = _sums(self._counts, part_of, len(parts))
        identified = counts[:, : len(CLASSES)]
        total = identified.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            columns = {"percent": _padded(identified / total)}
        columns["lower"], columns["upper"] = map(_padded, clopper_pearson(identified, total))
        if confusion is not None:
            limits = confusion_limits(identified, confusion.table)
            columns["confusion_lower"], columns["confusion_upper"] = map(_padded, limits)
        wbc = np.array([wbc_counts.get(part, np.nan) for part in parts]).reshape(-1, 1)
        columns |= {
            name: wbc * columns[share] / 100.0
            for name, share in (
                ("absolute", "percent"),
                *((f"absolute_{limit}", limit) for limit in list(columns)[1:]),
            )
        }
        centres = [self._confidences.centres(row, part_of, len(parts)) for row in range(len(ROWS))]
        columns["mean_confidence"], columns["median_confidence"] = np.stack(centres, axis=-1)
        table = pd.DataFrame(
            {
                "group": np.repeat(np.array(parts, dtype=object), len(ROWS)),
                "label": np.tile(np.array(ROWS, dtype=object), len(parts)),
                "count": counts.ravel(),
                "unlike": _sums(self._unlike, part_of, len(parts)).ravel(),
                **{name: values.ravel() for name, values in columns.items()},
            }
        )
        return table.reindex(columns=list(DIFFERENTIAL_COLUMNS)).astype(_DTYPES)


class _Confidences:
    """Confidences of cells by group and row of `ROWS`, both as numbers."""

    def __init__(self) -> None:
        # Cells of one group and row follow one another in a stretch. Of all stretches: group, row, cells;
        # and the confidences of all cells.
        none = np.zeros(0, np.int32)
        self._parts = [(none, none, none, np.zeros(0, np.float32))]

    def add(
        self, groups: NDArray[np.int32], rows: NDArray[np.intp], confidences: NDArray[np.float32]
    ) -> None:
        order = np.lexsort((rows, groups))
        kinds, starts = np.unique(np.stack([groups[order], rows[order]]), axis=1, return_index=True)
        cells = np.diff([*starts, len(order)])
        self._parts.append((*kinds.astype(np.int32), cells.astype(np.int32), confidences[order]))

    def of(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return groups and confidences of the cells of a row."""
        columns = zip(*self._parts, strict=True)
        groups, rows, cells, confidences = (np.concatenate(column) for column in columns)
        self._parts = [(groups, rows, cells, confidences)]
        wanted = rows == row
        return (
            np.repeat(groups[wanted], cells[wanted]),
            confidences[np.repeat(wanted, cells)],
        )

    def centres(self, row: int, part_of: NDArray[np.int32], parts: int) -> NDArray[np.float64]:
        """Return mean and median of a row in each part, shape (2, parts); NaN where it has no cells."""
        groups, confidences = self.of(row)
        part = part_of[groups]
        if np.any(part[1:] < part[:-1]):
            order = np.argsort(part, kind="stable")
            part, confidences = part[order], confidences[order]
        found = np.full((2, parts), np.nan)
        there, starts = np.unique(part, return_index=True)
        for number, start, end in zip(there, starts, [*starts[1:], len(part)], strict=False):
            some = confidences[start:end]
            found[:, number] = some.mean(dtype=np.float64), np.median(some)
        return found


def write_differential(path: Path, table: pd.DataFrame) -> None:
    """Write a differential as CSV and, beside it, as Parquet.

    Parameters
    ----------
    path : Path
        Of the CSV file; see `wbc_batch.report.tables` for its conventions.
    table : DataFrame
        As `differential` returns it.
    """
    rows = pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False)
    with csv_file(path, _SCHEMA) as append:
        append(rows)
    with parquet_file(path.with_suffix(".parquet"), _SCHEMA) as append:
        append(rows)


def read_differential(path: Path) -> pd.DataFrame:
    """Read the CSV file that `write_differential` wrote.

    Raises
    ------
    RunError
        If the file is not there or is not a differential.
    """
    text = {"group": str, "label": str}
    try:
        table = pd.read_csv(path, dtype=text, na_values=[""], keep_default_na=False)
        table = table.loc[:, list(DIFFERENTIAL_COLUMNS)].astype(
            {name: dtype for name, dtype in _DTYPES.items() if name not in _TEXT}
        )
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read as a differential ({error})") from error
    return table.assign(group=table["group"].fillna("").map(unguard_text))


def _padded(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn shares of the classes into percentages of all labels, NaN for those that are no class."""
    padded = np.full((len(shares), len(ROWS)), np.nan)
    padded[:, : len(CLASSES)] = 100.0 * shares
    return padded


def _groups(cells: pd.DataFrame) -> tuple[NDArray[np.intp], list[str]]:
    """Return the place of each cell's group among the groups, in order of appearance."""
    if "group" not in cells:
        return np.zeros(len(cells), np.intp), [""] * bool(len(cells))
    groups = cells["group"].astype(object).where(cells["group"].notna(), "")
    codes, names = pd.factorize(groups)
    return codes, [str(name) for name in names]


def _add(
    counts: dict[str, NDArray[np.int64]], names: Sequence[str], kinds: NDArray[np.intp]
) -> None:
    """Count kinds of cells: a group's place times the number of labels, plus the label's place."""
    more = np.bincount(kinds, minlength=len(names) * len(ROWS)).reshape(-1, len(ROWS))
    for name, row in zip(names, more, strict=True):
        counts[name] = counts[name] + row if name in counts else row


def _sums(
    counts: Mapping[str, NDArray[np.int64]], part_of: NDArray[np.int32], parts: int
) -> NDArray[np.int64]:
    """Add up the counts of the groups of each part, shape (parts, labels)."""
    sums = np.zeros((parts, len(ROWS)), np.int64)
    np.add.at(sums, part_of, np.array(list(counts.values()), np.int64).reshape(-1, len(ROWS)))
    return sums


def _labels(cells: pd.DataFrame) -> pd.Series:
    """Return the label of each cell, with `STATUS_ERROR` for those that were not classified."""
    labels = cells["label"].astype(object).fillna("").replace("", STATUS_ERROR)
    if "status" in cells:
        labels = labels.where(cells["status"] != STATUS_ERROR, STATUS_ERROR)
    unknown = set(labels) - set(ROWS)
    if unknown:
        raise InputError(
            f"the label {min(unknown, key=str)!r} is not one of {', '.join(ROWS[:-1])}; "
            "a differential counts only these"
        )
    return labels
