"""What to look at in a differential, in neutral words."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wbc_batch.report.ranges import Profile, Range
from wbc_batch.schema import CLASSES, UNIDENTIFIED

__all__ = [
    "LEAST_CELLS",
    "MANY_UNIDENTIFIED",
    "MOST_UNIDENTIFIED",
    "MOST_UNLIKE",
    "OUTSIDE",
    "TOO_FEW",
    "UNLIKE",
    "Flag",
    "group_flags",
]

#: Identified cells below which a differential says little.
LEAST_CELLS = 100
#: Share of the classified cells above which unidentified ones are many.
MOST_UNIDENTIFIED = 0.20
#: Share of the classified cells above which novel ones are many; it is 1 % of the validation cells.
MOST_UNLIKE = 0.10

#: Flags.
OUTSIDE = "outside the chosen range"
TOO_FEW = "too few cells"
MANY_UNIDENTIFIED = "many unidentified"
UNLIKE = "looks unlike the training data"


@dataclass(frozen=True, slots=True)
class Flag:
    """Something to look at.

    Attributes
    ----------
    group : str
    label : str
        The class that is meant; empty where the whole group is.
    flag : str
        `OUTSIDE`, `TOO_FEW`, `MANY_UNIDENTIFIED` or `UNLIKE`.
    side : str
        ``below`` or ``above`` the range; empty for the other flags.
    detail : str
        The numbers behind it.
    """

    group: str
    label: str
    flag: str
    side: str
    detail: str


def group_flags(table: pd.DataFrame, profile: Profile | None = None) -> list[Flag]:
    """Find what to look at in each group of a differential.

    A class is outside the chosen range only where every interval that is known, the exact one and the
    one with the classifier's confusion, lies wholly outside, on the same side.

    Parameters
    ----------
    table : DataFrame
        As `wbc_batch.report.differential` returns it.
    profile : Profile, optional
        The chosen reference ranges.

    Returns
    -------
    list of Flag
        The groups in their order; in each, the flags of the whole group first.
    """
    groups: dict[str, dict[str, Mapping[Hashable, Any]]] = {}
    for row in table.to_dict("records"):
        groups.setdefault(str(row["group"]), {})[str(row["label"])] = row
    return [flag for group, rows in groups.items() for flag in _flags(group, rows, profile)]


def _flags(
    group: str, rows: Mapping[str, Mapping[Hashable, Any]], profile: Profile | None
) -> list[Flag]:
    identified = sum(rows[label]["count"] for label in CLASSES)
    classified = identified + rows[UNIDENTIFIED]["count"]
    flags = []
    if identified < LEAST_CELLS:
        cells = "cell is" if identified == 1 else "cells are"
        few = f"{identified} {cells} identified, fewer than {LEAST_CELLS}"
        flags.append(Flag(group, "", TOO_FEW, "", few))
    unidentified = classified - identified
    if unidentified > MOST_UNIDENTIFIED * classified:
        flags.append(Flag(group, "", MANY_UNIDENTIFIED, "", _share(unidentified, classified)))
    unlike = sum(row.get("unlike", 0) for row in rows.values())
    if unlike > MOST_UNLIKE * classified:
        flags.append(Flag(group, "", UNLIKE, "", _share(unlike, classified)))
    if profile is not None:
        flags += [
            flag for label in CLASSES for flag in _outside(group, label, rows[label], profile)
        ]
    return flags


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} cells ({100 * part / whole:.1f} %)"


def _outside(group: str, label: str, row: Mapping[Hashable, Any], profile: Profile) -> list[Flag]:
    flags = []
    for prefix, ranges, unit, digits in (
        ("", profile.percent, "%", 1),
        ("absolute_", profile.absolute, "× 10⁹/L", 2),
    ):
        intervals = [
            (row[f"{prefix}{kind}lower"], row[f"{prefix}{kind}upper"])
            for kind in ("", "confusion_")
            if not np.isnan(row.get(f"{prefix}{kind}lower", np.nan))
        ]
        limits = ranges.get(label)
        if limits is not None and intervals and (side := _side(limits, intervals)):
            lower, upper = intervals[0]
            found = f"{lower:.{digits}f}–{upper:.{digits}f} lies {side} {limits} {unit}"
            flags.append(Flag(group, label, OUTSIDE, side, found))
    return flags


def _side(limits: Range, intervals: list[tuple[float, float]]) -> str:
    """Return the side on which all intervals lie, if they do."""
    sides = {limits.side(lower, upper) for lower, upper in intervals}
    return sides.pop() if len(sides) == 1 else ""
