"""Small tables that a user wrote or edited: found, read and checked, with the rows that are wrong named."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from wbc_batch.errors import InputError
from wbc_batch.report.tables import unguard_text

__all__ = ["name_rows", "read_list"]

_NAMED = 5


def read_list(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a CSV file as text, however a spreadsheet saved it.

    Comma or semicolon, with or without a byte order mark; the apostrophe that guards a spreadsheet
    against formulas is taken away.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Which the file must have; others are left out.

    Returns
    -------
    DataFrame
        Of str, stripped; an empty cell is an empty text. The index is the row's number in the file
        as spreadsheets count, the header being row 1.

    Raises
    ------
    InputError
        If there is no such file, it is no CSV table, or a column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
            usecols=lambda name: name.strip() in columns,
            skip_blank_lines=False,
        )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the spelling") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read as a CSV table ({reason}); save it as CSV, UTF-8"
        ) from error
    table = table.rename(columns=str.strip)
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; its first row must name the columns "
            f"{', '.join(columns)}"
        )
    table.index = pd.RangeIndex(2, len(table) + 2)
    table = table.apply(
        lambda column: column.fillna("").map(lambda text: unguard_text(text.strip()))
    )
    return table.loc[(table != "").any(axis=1), list(columns)]


def name_rows(rows: Iterable[int], values: Iterable[str]) -> str:
    """Name the first few wrong rows: ``row 3 ('blast'), row 7 ('Mono') and 4 more``."""
    found = [f"row {row} ({value!r})" for row, value in zip(rows, values, strict=True)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
