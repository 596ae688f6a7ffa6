"""Small tables that a user wrote or edited: found, read and checked, with the rows that are wrong named."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from wbc_batch.csv_rows import read_rows
from wbc_batch.errors import InputError
from wbc_batch.paths import exists
from wbc_batch.report.tables import unguard_text

__all__ = ["first_few", "name_rows", "read_header", "read_list", "refuse_twice"]


def read_header(path: Path) -> list[str]:
    """Name the columns of a CSV file; none where there is no such file, or nothing in it.

    Raises
    ------
    InputError
        If there is something in it, but it cannot be read as a CSV table.
    """
    if not exists(path):
        return []
    return next(read_rows(path, errors="replace"), (0, []))[1]


def read_list(path: Path, columns: Sequence[str], filled: str | None = None) -> pd.DataFrame:
    """Read columns of a CSV file as text, as `read_rows` does.

    The apostrophe that guards a spreadsheet against formulas is taken away.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Which the file must have; others are left out.
    filled : str, optional
        One of them: rows where it is empty are left out, and a file that has only such rows will do.

    Returns
    -------
    DataFrame
        Of str, stripped; an empty cell is an empty text, an empty row is left out. The index is the row's
        number in the file as spreadsheets count, the header being row 1.

    Raises
    ------
    InputError
        If there is no such file, it is no CSV table, a column is missing, a row has more cells than
        there are columns, or all are empty.
    """
    rows = read_rows(path)
    _, header = next(rows, (0, []))
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; its first row must name the columns "
            f"{', '.join(columns)}"
        )
    places = [header.index(name) for name in columns]
    needed = range(len(columns)) if filled is None else [columns.index(filled)]
    found, empty = {}, True
    for number, row in rows:
        texts = [unguard_text(row[place].strip()) if place < len(row) else "" for place in places]
        empty = empty and not any(texts)
        if any(texts[at] for at in needed):
            found[number] = texts
    if empty:
        raise InputError(f"{path} has no rows below its header; add some, or leave the file out")
    return pd.DataFrame.from_dict(found, orient="index", columns=list(columns))


def refuse_twice(path: Path, names: "pd.Series[str]", what: str) -> None:
    """Make sure that no name stands in a list twice.

    Parameters
    ----------
    path : Path
        Of the list.
    names : Series of str
        A column of what `read_list` returned.
    what : str
        What they name, in the plural.

    Raises
    ------
    InputError
        If one does, with the rows named.
    """
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(
            f"{path} lists {what} twice: {name_rows(twice.index, twice)}; keep one row for each"
        )


def name_rows(rows: Iterable[int], values: Iterable[str]) -> str:
    """Name the first few wrong rows: ``row 3 ('blast'), row 7 ('Mono') and 4 more``."""
    found = [f"row {row} ({value!r})" for row, value in zip(rows, values, strict=True)]
    return first_few(found)


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Name the first few of many: ``slide-1, slide-2 and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
