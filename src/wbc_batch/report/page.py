"""``report.html``: one self-contained page, without scripts and without network."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from wbc_batch.pages import environment
from wbc_batch.report.differential import ERROR, Tally
from wbc_batch.report.gallery import Picks, Plate, make_plates
from wbc_batch.report.provenance import Provenance
from wbc_batch.schema import CLASS_COLORS, CLASSES, UNIDENTIFIED

__all__ = ["MAX_ERRORS", "render_page"]

#: What the page lists at most; the tables beside it hold all.
MAX_GROUPS = 100
MAX_ERRORS = 200

#: Bytes of pictures per label; six labels keep a page far below 25 MB.
_PICTURE_BYTES = 1_500_000


@dataclass(frozen=True)
class Group:
    """The differential of one group, as the page shows it."""

    name: str
    rows: list[dict[str, Any]]
    identified: int
    unidentified: int
    errors: int


@dataclass(frozen=True)
class Gallery:
    """Some cells of one label: the `least` confident ones first, then the `most` confident."""

    label: str
    count: int
    plates: list[Plate]
    least: int
    most: int


def render_page(
    name: str,
    tally: Tally,
    picks: Picks,
    errors: pd.DataFrame,
    provenance: Provenance,
) -> str:
    """Make the page of a run.

    Parameters
    ----------
    name : str
        Name of the run.
    tally : Tally
        All its cells.
    picks : Picks
        The cells to show.
    errors : DataFrame
        The first `MAX_ERRORS` cells that could not be classified; the columns of ``errors.csv``.
    provenance : Provenance

    Returns
    -------
    str
        HTML. The same input gives the same text.
    """
    overall = _records(tally.overall())
    counts = {row["label"]: row["count"] for row in overall}
    groups = [
        _group(str(group), table) for group, table in tally.by_group().groupby("group", sort=False)
    ]
    galleries = {
        label: _gallery(label, counts[label], picks, provenance)
        for label in counts
        if label != ERROR
    }
    unidentified = galleries.pop(UNIDENTIFIED)
    template = _environment().get_template("report.html.j2")
    return template.render(
        name=name,
        totals={
            "cells": sum(counts.values()),
            "identified": sum(counts[label] for label in CLASSES),
            "unidentified": counts[UNIDENTIFIED],
            "errors": counts[ERROR],
        },
        groups=groups[:MAX_GROUPS],
        more_groups=max(0, len(groups) - MAX_GROUPS),
        overall=overall,
        classes=CLASSES,
        colors={**CLASS_COLORS, ERROR: "none"},
        galleries=list(galleries.values()),
        unidentified=unidentified,
        has_canonical=provenance.canonical is not None,
        errors=[_error(row) for row in errors.to_dict("records")],
        provenance=provenance,
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values, with None for NaN."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def _group(name: str, table: pd.DataFrame) -> Group:
    rows = _records(table)
    classes = [row for row in rows if row["label"] in CLASSES]
    count = {row["label"]: row["count"] for row in rows}
    identified = sum(row["count"] for row in classes)
    return Group(name or "(no group)", classes, identified, count[UNIDENTIFIED], count[ERROR])


def _gallery(label: str, count: int, picks: Picks, provenance: Provenance) -> Gallery:
    plates = make_plates(picks.of(label), provenance.canonical, provenance.base, _PICTURE_BYTES)
    least = min(len(plates), picks.least)
    return Gallery(label, count, plates, least, len(plates) - least)


def _error(row: Mapping[Hashable, Any]) -> dict[str, str]:
    place = "/".join(part for part in (row["source"], row["member"]) if part)
    number = "" if pd.isna(row["index"]) else f" [{int(row['index'])}]"
    return {"place": place + number, "reason": row["error"] or "no reason was recorded"}


def _environment() -> jinja2.Environment:
    templates = environment("wbc_batch.report")
    templates.filters |= {
        "share": lambda part, whole: (
            f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else ""
        ),
        "interval": _interval,
    }
    return templates


def _interval(row: dict[str, Any]) -> str:
    return "" if row["lower"] is None else f"{row['lower']:.1f}–{row['upper']:.1f}"
