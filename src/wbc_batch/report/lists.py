"""Small tables that a user wrote or edited: found, read and checked, with the rows that are wrong named."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from wbc_batch.errors import InputError
from wbc_batch.report.tables import unguard_text

__all__ = ["name_rows", "read_header", "read_list", "refuse_twice"]

_NAMED = 5


def read_header(path: Path) -> list[str]:
    """Name the columns of a CSV file; none where there is no such file, or no table in it."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
        return [name.strip() for name in next(csv.reader([first], delimiter=_separator(first)), [])]
    except (OSError, csv.Error):
        return []


def read_list(path: Path, columns: Sequence[str], filled: str | None = None) -> pd.DataFrame:
    """Read columns of a CSV file as text, however a spreadsheet saved it.

    Comma or semicolon, with or without a byte order mark; the apostrophe that guards a spreadsheet
    against formulas is taken away.

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
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=_separator(first), strict=True)
            return _checked(path, rows, columns, filled)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the spelling") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a CSV table ({error}); save it as CSV, UTF-8"
        ) from error


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
            f"{path} names {what} twice: {name_rows(twice.index, twice)}; keep one row of each"
        )


def name_rows(rows: Iterable[int], values: Iterable[str]) -> str:
    """Name the first few wrong rows: ``row 3 ('blast'), row 7 ('Mono') and 4 more``."""
    found = [f"row {row} ({value!r})" for row, value in zip(rows, values, strict=True)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _separator(first_line: str) -> str:
    return ";" if first_line.count(";") > first_line.count(",") else ","


def _checked(
    path: Path, rows: Iterable[list[str]], columns: Sequence[str], filled: str | None
) -> pd.DataFrame:
    rows = iter(rows)
    header = [name.strip() for name in next(rows, [])]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; its first row must name the columns "
            f"{', '.join(columns)}"
        )
    places = [header.index(name) for name in columns]
    needed = range(len(columns)) if filled is None else [columns.index(filled)]
    found, empty = {}, True
    for number, row in enumerate(rows, 2):
        # A 6,8 that was not quoted would else be read as 6.
        if any(text.strip() for text in row[len(header) :]):
            raise InputError(
                f"row {number} of {path} has more cells than the {len(header)} columns that its first row "
                "names; put a text with a comma or semicolon in double quotes"
            )
        texts = [unguard_text(row[place].strip()) if place < len(row) else "" for place in places]
        empty = empty and not any(texts)
        if any(texts[at] for at in needed):
            found[number] = texts
    if empty:
        raise InputError(f"{path} has no rows below its first; add some, or leave the file out")
    return pd.DataFrame.from_dict(found, orient="index", columns=list(columns))
