"""``report.html``: one self-contained page, without network. Its one script sorts a table."""

import base64
import hashlib
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from wbc_batch.pages import environment
from wbc_batch.pages.drawing import inline_svg
from wbc_batch.report.agreement import Agreement, class_figures
from wbc_batch.report.collect import Collected, Known
from wbc_batch.report.differential import ROWS, by_group
from wbc_batch.report.drawings import MAX_BARS
from wbc_batch.report.flags import Flag
from wbc_batch.report.gallery import MAX_GROUPS, Plate, make_plates, place_of
from wbc_batch.report.provenance import Provenance
from wbc_batch.report.ranges import Profile
from wbc_batch.schema import (
    CHOSEN_ON,
    CLASSES,
    LABELS,
    NOT_KNOWN,
    PLOTS,
    STATUS_ERROR,
    UNIDENTIFIED,
    UNNAMED_GROUP,
)

__all__ = ["RunView", "render_page"]

_log = logging.getLogger(__name__)

#: Bytes that all pictures of a page may take; with its text it stays below 25 MB.
PICTURE_BYTES = 15_000_000
#: Up to this many groups are unfolded from the start.
_UNFOLDED = 2
_SCRIPT = "sort.js"
_DRAWINGS = ("shares", "confidence", "throughput")


@dataclass(frozen=True)
class RunView:
    """All that the page of a run shows.

    Attributes
    ----------
    name : str
        Of the run.
    collected : Collected
    table : DataFrame
        The differential of each group.
    reviewed : DataFrame or None
        The same after the review.
    flags : sequence of Flag
    profile : Profile or None
        The chosen reference ranges.
    provenance : Provenance
    svgs : mapping of str to bytes
        The drawings of `wbc_batch.report.drawings`, by name.
    files : tuple of str
        Tables beside the page.
    """

    name: str
    collected: Collected
    table: pd.DataFrame
    reviewed: pd.DataFrame | None
    flags: Sequence[Flag]
    profile: Profile | None
    provenance: Provenance
    svgs: Mapping[str, bytes]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Some cells of one label: the `least` confident ones first, then the `most` confident."""

    label: str
    count: int
    mean_confidence: float
    median_confidence: float
    plates: list[Plate]
    least: int
    most: int


@dataclass(frozen=True)
class Group:
    """One group, as the page shows it."""

    id: str
    name: str
    rows: list[dict[str, Any]]
    reviewed: list[dict[str, Any]]
    identified: int
    unidentified: int
    errors: int
    flags: list[Flag]
    galleries: list[Gallery]

    @property
    def outside(self) -> dict[str, str]:
        """On which side of the chosen range classes lie wholly, by class."""
        return {flag.label: flag.side for flag in self.flags if flag.label}


def render_page(view: RunView) -> str:
    """Make the page of a run.

    Parameters
    ----------
    view : RunView

    Returns
    -------
    str
        HTML. The same input gives the same text.
    """
    collected = view.collected
    overall = _records(collected.tally.overall())
    counts = {row["label"]: row["count"] for row in overall}
    groups = _groups(view)
    _tell_missing([plate for g in groups for gallery in g.galleries for plate in gallery.plates])
    known = collected.all_known()
    script = files(__package__).joinpath("templates", _SCRIPT).read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            totals={
                "cells": sum(counts.values()),
                "identified": sum(counts[label] for label in CLASSES),
                "unidentified": counts[UNIDENTIFIED],
                "errors": counts[STATUS_ERROR],
            },
            groups=groups,
            more_groups=max(0, len(collected.tally.groups) - MAX_GROUPS),
            unfolded=len(groups) <= _UNFOLDED,
            overall=overall,
            classes=CLASSES,
            labels=ROWS,
            has_absolute=bool(view.table["absolute"].notna().any()),
            named_sets=_named_sets(view.provenance),
            has_confusion=bool(view.table["confusion_lower"].notna().any()),
            known=_known(known) if collected.known else None,
            known_groups={
                name: _known(part) for name, part in islice(collected.known.items(), MAX_GROUPS)
            },
            more_known=max(0, len(collected.known) - MAX_GROUPS),
            review=collected.review_agreement() if view.reviewed is not None else None,
            errors=[_error(row) for row in collected.errors.to_dict("records")],
            drawings={name: _inline(view, name) for name in _DRAWINGS if name in view.svgs},
            unnamed=UNNAMED_GROUP,
            max_bars=MAX_BARS,
            plots=PLOTS,
            script=Markup(script),
            script_hash=_hash(script),
        )
    )


def _tell_missing(plates: Sequence[Plate]) -> None:
    """Say, not on the page alone, that it lacks pictures, as where the images were moved."""
    missing = [plate for plate in plates if plate.problem]
    if missing:
        _log.warning(
            "the page lacks %d of %d images; the first missing one is of %s: %s",
            len(missing),
            len(plates),
            missing[0].place,
            missing[0].problem,
        )


def _groups(view: RunView) -> list[Group]:
    budget = view.collected.picks.budget(PICTURE_BYTES)
    reviewed = {} if view.reviewed is None else by_group(view.reviewed, MAX_GROUPS)
    tables = by_group(view.table, MAX_GROUPS)
    return [
        _group(number, name, rows, reviewed.get(name), view, budget)
        for number, (name, rows) in enumerate(tables.items(), 1)
    ]


def _group(
    number: int,
    name: str,
    table: pd.DataFrame,
    reviewed: pd.DataFrame | None,
    view: RunView,
    budget: int,
) -> Group:
    rows = _records(table)
    by_label = {row["label"]: row for row in rows}
    count = {label: row["count"] for label, row in by_label.items()}
    return Group(
        id=f"group-{number}",
        name=name or UNNAMED_GROUP,
        rows=[row for row in rows if row["label"] in CLASSES],
        reviewed=[] if reviewed is None else _records(reviewed),
        identified=sum(count[label] for label in CLASSES),
        unidentified=count[UNIDENTIFIED],
        errors=count[STATUS_ERROR],
        flags=[flag for flag in view.flags if flag.group == name],
        galleries=[
            _gallery(name, by_label[label], view, budget) for label in LABELS if count[label]
        ],
    )


def _gallery(group: str, row: Mapping[str, Any], view: RunView, budget: int) -> Gallery:
    picks, provenance = view.collected.picks, view.provenance
    chosen = picks.of(group, row["label"])
    plates = make_plates(chosen, provenance.canonical, provenance.base, budget)
    least = min(len(plates), picks.least)
    return Gallery(
        label=row["label"],
        count=row["count"],
        mean_confidence=row["mean_confidence"],
        median_confidence=row["median_confidence"],
        plates=plates,
        least=least,
        most=len(plates) - least,
    )


def _named_sets(provenance: Provenance) -> list[tuple[str, str]]:
    """Whose cells the model's confusion was measured on, and what they were to it, in plain words."""
    found = provenance.confusion
    return (
        []
        if found is None
        else list(zip(found.data_sets, map(_in_words, found.roles), strict=True))
    )


def _in_words(role: str) -> str:
    return {CHOSEN_ON: "like those it was trained on", NOT_KNOWN: "perhaps trained on"}.get(
        role, role
    )


def _known(known: Known) -> dict[str, Any]:
    """Figures of cells whose class was known beforehand."""
    labels = Agreement(known.labels)
    known_classes = labels.table[: len(CLASSES)].tolist()
    figures = class_figures(labels.identified.table)[: len(CLASSES)]
    return {
        "cells": labels.cells,
        "identified": labels.identified,
        "guesses": Agreement(known.guesses),
        "rows": [
            {"label": label, "counts": counts, "cells": sum(counts), "figures": of_identified}
            for label, counts, of_identified in zip(CLASSES, known_classes, figures, strict=True)
        ],
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values, with None for NaN."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def _error(row: Mapping[Hashable, Any]) -> dict[str, str]:
    reason = row["error"] if isinstance(row["error"], str) else ""
    return {
        "place": place_of(row),
        "group": row["group"],
        "reason": reason or "no reason was recorded",
    }


def _inline(view: RunView, name: str) -> Markup:
    return Markup(inline_svg(view.svgs[name], name))


def _hash(script: str) -> str:
    """Return what a content security policy calls the script by."""
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _environment() -> jinja2.Environment:
    templates = environment("wbc_batch.report")
    templates.filters |= {
        "share": lambda part, whole: (
            f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else ""
        ),
        "interval": _interval,
    }
    return templates


def _interval(row: dict[str, Any], kind: str = "", digits: int = 1) -> str:
    lower, upper = row[f"{kind}lower"], row[f"{kind}upper"]
    return "" if lower is None else f"{lower:.{digits}f}–{upper:.{digits}f}"
