"""White blood cell counts per group, which make absolute counts of percentages."""

import logging
import math
from pathlib import Path

from wbc_batch.errors import InputError
from wbc_batch.report.lists import first_few, name_rows, read_list, refuse_twice

__all__ = ["read_wbc_counts"]

_log = logging.getLogger(__name__)

#: Above this, 10^9 per litre, a number was surely meant per microlitre.
_MOST = 1000.0
#: Above this it may be: a leukaemia has such counts, too.
_USUAL = 100.0


def read_wbc_counts(path: Path) -> dict[str, float]:
    """Read a CSV table with the columns ``group`` and ``wbc`` (10^9 cells per litre).

    Counts above 100 are logged, as they may be meant per microlitre.

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
            f"{path} has counts that are not a number of 10^9 cells per liter: "
            f"{name_rows(wrong.index, wrong['wbc'])}; write 6.8 for 6,800 cells per microliter"
        )
    refuse_twice(path, table["group"], "groups")
    found = dict(zip(table["group"], counts.values(), strict=True))
    high = [f"{count:g} for {group!r}" for group, count in found.items() if count > _USUAL]
    if high:
        _log.warning(
            "%s has unusually high white blood cell counts, taken as 10^9 per liter: %s; if they were "
            "meant per microliter, divide them by 1,000",
            path,
            first_few(high),
        )
    return found


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan
