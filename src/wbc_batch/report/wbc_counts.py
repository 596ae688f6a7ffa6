"""White blood cell counts per group, which make absolute counts of percentages."""

import math
from pathlib import Path

from wbc_batch.errors import InputError
from wbc_batch.report.lists import name_rows, read_list, refuse_twice

__all__ = ["read_wbc_counts"]

#: Above this, 10^9 per litre, a number was surely meant per microlitre.
_MOST = 1000.0


def read_wbc_counts(path: Path) -> dict[str, float]:
    """Read a CSV table with the columns ``group`` and ``wbc`` (10^9 cells per litre).

    Returns
    -------
    dict of str to float
        By group.

    Raises
    ------
    InputError
        If the file cannot be read, a count is no such number, or a group stands in it twice; the rows
        are named.
    """
    table = read_list(path, ("group", "wbc"))
    counts = {row: _number(text) for row, text in table["wbc"].items()}
    wrong = table[[not 0.0 <= count <= _MOST for count in counts.values()]]
    if len(wrong):
        raise InputError(
            f"{path} has counts that are no number of 10^9 cells per litre: "
            f"{name_rows(wrong.index, wrong['wbc'])}; write 6.8 for 6,800 cells per microlitre"
        )
    refuse_twice(path, table["group"], "groups")
    return dict(zip(table["group"], counts.values(), strict=True))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan
