"""What a reviewer said of cells: read from a corrections file, merged, never overwriting the model."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wbc_batch.errors import InputError
from wbc_batch.report.lists import name_rows, read_header, read_list, refuse_twice
from wbc_batch.schema import LABELS, REVIEW_COLUMNS

__all__ = [
    "NO_REVIEW",
    "Review",
    "after_review",
    "earlier_review",
    "known_labels",
    "merge_review",
    "read_review",
]

#: What to say where a report shall have no review.
NO_REVIEW = "none"


@dataclass(frozen=True)
class Review:
    """The reviewed cells.

    Attributes
    ----------
    table : DataFrame
        The columns `REVIEW_COLUMNS` and ``row``, the row of the file; indexed by ``cell_id``.
    name : str
        Of the file.
    """

    table: pd.DataFrame
    name: str

    def refuse_unknown(self, known: set[str]) -> None:
        """Make sure that every reviewed cell is among the known ones.

        Raises
        ------
        InputError
            If not, with the rows named.
        """
        strange = self.table[~self.table.index.isin(known)]
        if len(strange):
            raise InputError(
                f"{self.name} lists cells that are not in this run: "
                f"{name_rows(strange['row'], strange.index)}; "
                "give the corrections made for this run"
            )


def read_review(path: Path) -> Review:
    """Read a corrections file: a CSV table with ``cell_id`` and the columns `REVIEW_COLUMNS`.

    A row whose ``reviewed_label`` is empty was not reviewed, so that a whole ``cells.csv`` with these
    columns will do. Upper and lower case are alike.

    Raises
    ------
    InputError
        If the file cannot be read, no cell is reviewed in it, a label is neither a class nor
        ``unidentified``, or a cell stands in it twice; the rows are named.
    """
    table = _reviewed_rows(path)
    if table.empty:
        raise InputError(
            f"{path} has no reviewed cell: every reviewed_label is empty; fill in the labels of the "
            "reviewed cells"
        )
    return _checked(path, table)


def earlier_review(path: Path) -> Review | None:
    """Read the review that the table of cells of an earlier report holds.

    Parameters
    ----------
    path : Path
        A ``cells.csv``.

    Returns
    -------
    Review or None
        None if there is no such table, or no cell in it was reviewed.

    Raises
    ------
    InputError
        If the table cannot be read, for it may hold a review, or the review is none that `read_review`
        takes.
    """
    if "reviewed_label" not in read_header(path):
        return None
    table = _reviewed_rows(path)
    return None if table.empty else _checked(path, table)


def _reviewed_rows(path: Path) -> pd.DataFrame:
    return read_list(path, ("cell_id", *REVIEW_COLUMNS), filled="reviewed_label")


def known_labels(path: Path, labels: "pd.Series[str]") -> "pd.Series[str]":
    """Make sure that labels which somebody may have edited are known ones; upper and lower case are alike.

    Parameters
    ----------
    path : Path
        Of their table.
    labels : Series of str
        A column of it, empty where there is no label; the index is the row's number in the file.

    Returns
    -------
    Series of str
        In lower case.

    Raises
    ------
    InputError
        If a label is neither a class nor ``unidentified``, with the column and the rows named.
    """
    found = labels.str.strip().str.casefold()
    unknown = labels[~found.isin([*LABELS, ""])]
    if len(unknown):
        raise InputError(
            f"{path} has labels in the column {labels.name} that are not among "
            f"{', '.join(LABELS)}: {name_rows(unknown.index, unknown)}; correct them, "
            "or leave them empty"
        )
    return found


def _checked(path: Path, table: pd.DataFrame) -> Review:
    labels = known_labels(path, table["reviewed_label"])
    refuse_twice(path, table["cell_id"], "cells")
    table = table.assign(reviewed_label=labels, row=table.index)
    return Review(table.set_index("cell_id"), str(path))


def merge_review(cells: pd.DataFrame, review: Review) -> pd.DataFrame:
    """Add a reviewer's columns to cells; what the model said stays as it is.

    Parameters
    ----------
    cells : DataFrame
        With ``cell_id``.
    review : Review

    Returns
    -------
    DataFrame
        With the columns `REVIEW_COLUMNS`, missing where a cell was not reviewed.
    """
    found = review.table.reindex(cells["cell_id"])
    columns = {
        name: found[name].astype(object).where(found[name].notna(), None).to_numpy()
        for name in REVIEW_COLUMNS
    }
    return cells.assign(**columns)


def after_review(cells: pd.DataFrame) -> pd.DataFrame:
    """Let the reviewer's labels count where there are any.

    Parameters
    ----------
    cells : DataFrame
        With ``label``, ``status`` and ``reviewed_label``.

    Returns
    -------
    DataFrame
        The cells with ``label`` and ``status`` as they are after the review, and no ``confidence`` where the
        reviewer changed the label: the model's was in another one.
    """
    reviewed = cells["reviewed_label"].notna() & (cells["reviewed_label"] != "")
    changed = {"label": cells["label"].astype(object).where(~reviewed, cells["reviewed_label"])}
    if "confidence" in cells:
        changed["confidence"] = cells["confidence"].mask(cells["label"] != changed["label"])
    if "status" in cells:  # a person saw a cell in what the model could not read
        changed["status"] = cells["status"].astype(object).where(~reviewed, "ok")
    return cells.assign(**changed)
