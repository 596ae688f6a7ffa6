"""Rows of CSV files that a user wrote or edited, read in one way, however a spreadsheet saved them."""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from wbc_batch.errors import InputError, reason

__all__ = ["read_rows", "separator"]

#: The line that Excel puts before the first one to say what separates cells.
_STATED = re.compile(r'"?sep=([,;\t])"?\s*')


def read_rows(path: Path, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a CSV file, strictly: none is merged with the next one, none is longer than the first.

    The separator is a comma, a semicolon or a tab; a byte order mark is passed over.

    Parameters
    ----------
    path : Path
    errors : str
        What becomes of bytes that are not UTF-8, as `open` has it.

    Yields
    ------
    number : int
        Of the row, as spreadsheets count, from 1.
    cells : list of str
        The first row that is not blank comes first, stripped: it names the columns. Later ones may be
        shorter; empty lines are left out.

    Raises
    ------
    InputError
        If there is no such file, it is no CSV table, or a row has more cells than there are columns.
    """
    number, width = 0, 0
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
            delimiter, lines = _lines(path, file)
            for number, row in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), 1):
                if not width:
                    if any(name.strip() for name in row):
                        width = len(row)
                        yield number, [name.strip() for name in row]
                elif any(text.strip() for text in row[width:]):  # 6,8 would else be read as 6
                    raise InputError(
                        f"row {number} of {path} has more cells than the {width} columns that its "
                        "first row names; put values that contain a comma or semicolon in double "
                        "quotes, or write 6.8 instead of 6,8"
                    )
                elif row:
                    yield number, row[:width]
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the spelling") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened ({reason(error)}); give a CSV file that you can read"
        ) from error
    except UnicodeDecodeError as error:
        raise _no_csv(path, str(error)) from error
    except csv.Error as error:
        raise InputError(
            f"row {number + 1} of {path} cannot be read ({error}); look there for a double quote "
            "that is not closed, or save the table as CSV, UTF-8"
        ) from error


def separator(path: Path) -> str:
    """Tell what separates the cells of a file that `read_rows` reads: a comma, a semicolon or a tab."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return _lines(path, file)[0]


def _lines(path: Path, file: TextIO) -> tuple[str, Iterable[str]]:
    """Tell what separates the cells, and give the lines of the table."""
    head = []
    for line in file:
        if "\0" in line:  # as in UTF-16, which Excel calls Unicode text
            raise _no_csv(path, "it is not UTF-8 text")
        head.append(line)
        if line.strip():
            break
    first = head[-1] if head else ""
    if stated := _STATED.fullmatch(first):
        return stated[1], file
    return max(",;\t", key=first.count), chain(head, file)


def _no_csv(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read as a CSV table ({why}); save it as CSV, UTF-8")
