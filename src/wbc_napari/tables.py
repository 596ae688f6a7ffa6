"""The table of cells, as layers carry it and ``cells.csv`` holds it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.names import printable
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELL_COLUMNS,
    GIVEN_LABEL_COLUMN,
    PLACE_TYPES,
    REVIEW_COLUMNS,
    STATUS_ERROR,
    STATUS_OK,
)
from wbc_batch.sources import Cell
from wbc_napari.crops import Crops, FieldCrops

if TYPE_CHECKING:
    from wbc_batch.classifier import Predictions

__all__ = [
    "PENDING",
    "cell_table",
    "current_labels",
    "resumed",
    "review_of_other_size",
    "reviewed_labels",
    "with_results",
    "without_results",
]

#: Status of a cell that was not classified yet.
PENDING = "pending"

_TEXT = ("label", "predicted", "error", *REVIEW_COLUMNS)


def cell_table(crops: Crops) -> pd.DataFrame:
    """List crops as a table: a row per crop, nothing classified yet.

    Returns
    -------
    DataFrame
        The columns of `wbc_batch.schema.CELL_COLUMNS`, of boxes and given labels where there are any,
        and `REVIEW_COLUMNS`. Where there is nothing to say, text is "" and a number NaN.
    """
    cells = [crops.cell(index) for index in range(len(crops))]
    table = pd.DataFrame(
        {
            "cell_id": getattr(crops, "ids", None) or [cell.cell_id for cell in cells],
            "source": [cell.source for cell in cells],
            "member": [cell.member for cell in cells],
            "index": pd.array([cell.index for cell in cells], dtype="Float64").to_numpy(
                float, na_value=np.nan
            ),
            "group": [cell.group for cell in cells],
            "status": PENDING,
        }
    ).reindex(columns=[*CELL_COLUMNS, *REVIEW_COLUMNS])
    if not table["index"].isna().any():
        table["index"] = table["index"].astype(np.int64)
    if isinstance(crops, FieldCrops):
        table[list(BOX_COLUMNS)] = crops.boxes
    else:
        table = table.join(_listed_places(cells))
    numbers = [
        name
        for name in CELL_COLUMNS
        if name.startswith("prob_") or name in ("confidence", "margin", "novelty")
    ]
    table = table.astype(dict.fromkeys(numbers, np.float32)).astype(dict.fromkeys(_TEXT, object))
    return table.fillna(dict.fromkeys(_TEXT, ""))


def _listed_places(cells: Sequence[Cell]) -> pd.DataFrame:
    """Boxes of listed cells, given labels, where pixels lie; only the columns that any of them needs."""
    columns: dict[str, list[Any]] = {}
    if any(cell.box for cell in cells):
        for name in BOX_COLUMNS:
            columns[name] = [getattr(cell.box, name, None) for cell in cells]
    if any(cell.given_label for cell in cells):
        columns[GIVEN_LABEL_COLUMN] = [printable(cell.given_label) for cell in cells]
    if any(cell.place for cell in cells):
        for name in PLACE_TYPES:
            columns[name] = [getattr(cell.place, name, None) for cell in cells]
    return pd.DataFrame(columns, range(len(cells)))


def with_results(
    table: pd.DataFrame,
    rows: NDArray[np.intp],
    predictions: "Predictions | None",
    errors: dict[int, str],
) -> None:
    """Enter the results of one batch into a table.

    Parameters
    ----------
    table : DataFrame
        As `cell_table` returns it; changed in place.
    rows : ndarray of int
        The crops of the batch.
    predictions : Predictions or None
        Of those that are not in `errors`, in order; None if there is none.
    errors : dict
        From the number of a crop to the reason why it could not be classified.
    """
    good = [row for row in rows if row not in errors]
    if predictions is not None:
        results = predictions.to_frame().set_index(pd.Index(good))
        for name in results.columns:
            table.loc[good, name] = results[name].astype(table[name].dtype)
        table.loc[good, "status"] = STATUS_OK
        table.loc[good, "error"] = ""
    for row, reason in errors.items():
        table.loc[row, ["status", "error"]] = [STATUS_ERROR, reason]


def without_results(table: pd.DataFrame) -> pd.DataFrame:
    """Copy a table of cells as if none of them was classified or reviewed."""
    first, last = CELL_COLUMNS.index("status"), CELL_COLUMNS.index("error")
    names = [*CELL_COLUMNS[first : last + 1], *REVIEW_COLUMNS]
    return table.assign(
        **{name: "" if name in _TEXT else np.nan for name in names if name in table}
    ).assign(status=PENDING)


def resumed(table: pd.DataFrame, earlier: pd.DataFrame, results: bool) -> pd.DataFrame:
    """Take over what was known of the same cells.

    Parameters
    ----------
    table : DataFrame
        As `cell_table` returns it.
    earlier : DataFrame
        Of an earlier run.
    results : bool
        Take over results; else only what reviewers said.
    """
    known = earlier.drop_duplicates("cell_id").set_index("cell_id")
    places = table.index[table["cell_id"].isin(known.index)]
    known = known.loc[table.loc[places, "cell_id"]]
    names = list(REVIEW_COLUMNS)
    if results:
        first, last = CELL_COLUMNS.index("status"), CELL_COLUMNS.index("error")
        names += CELL_COLUMNS[first : last + 1]
    if GIVEN_LABEL_COLUMN in known:  # a table said it, no model and no reviewer
        if GIVEN_LABEL_COLUMN not in table:
            table[GIVEN_LABEL_COLUMN] = ""
        names.append(GIVEN_LABEL_COLUMN)
    for name in names:
        if name in known:
            table.loc[places, name] = known[name].astype(table[name].dtype).to_numpy()
    return table


def review_of_other_size(table: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """Take over what a reviewer said of the same points when their crops had another size, so another name.

    Parameters
    ----------
    table : DataFrame
        As `cell_table` returns it, of points.
    earlier : DataFrame
        The features of these points, row by row.
    """
    needed = {"cell_id", "index", *BOX_COLUMNS, *REVIEW_COLUMNS}
    if len(table) != len(earlier) or not needed <= set(earlier.columns):
        return table
    now, then = (_centres(cells) for cells in (table, earlier))
    # Each edge is rounded to a pixel.
    there = (np.abs(now - then) <= 1).all(axis=1) & ~earlier["cell_id"].duplicated().to_numpy()
    resized = (table["width"].to_numpy(float) != earlier["width"].to_numpy(float)) & there
    rows = resized & (reviewed_labels(table) == "") & (reviewed_labels(earlier) != "")
    for name in REVIEW_COLUMNS:
        table.loc[rows, name] = earlier[name].to_numpy()[rows]
    return table


def _centres(cells: pd.DataFrame) -> NDArray[np.float64]:
    """Centres of boxes, with the number of their field, 0 where there is one only."""
    x, y, width, height, field = cells[[*BOX_COLUMNS, "index"]].to_numpy(float, na_value=np.nan).T
    return np.column_stack([x + width / 2, y + height / 2, np.nan_to_num(field)])


def current_labels(cells: pd.DataFrame) -> NDArray[np.object_]:
    """Return the reviewer's label of each cell, the model's where there is none, else ""."""
    classified = (cells["status"] == STATUS_OK).to_numpy()
    said = np.where(classified, cells["label"].to_numpy(object), "")
    reviewed = reviewed_labels(cells)
    return np.where(reviewed == "", said, reviewed)


def reviewed_labels(cells: pd.DataFrame) -> NDArray[np.object_]:
    """Return the reviewer's label of each cell, "" where there is none."""
    if "reviewed_label" not in cells:
        return np.full(len(cells), "", object)
    said = cells["reviewed_label"].to_numpy(object)
    return np.where(pd.isna(said), "", said)
