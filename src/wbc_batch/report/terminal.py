"""Differentials and comparisons on a terminal, as wide as it is."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbc_batch.errors import visible
from wbc_batch.report.compare import Comparison
from wbc_batch.report.differential import ROWS, by_group
from wbc_batch.report.flags import group_flags
from wbc_batch.report.lists import first_few
from wbc_batch.schema import CLASSES, LABELS, STATUS_ERROR, UNIDENTIFIED, UNNAMED_GROUP

__all__ = ["print_comparison", "print_differential"]

#: Groups that are printed at most; ``differential.csv`` holds all.
MAX_GROUPS = 40

_SHORT = {
    "basophil": "baso",
    "eosinophil": "eos",
    "lymphocyte": "lymph",
    "monocyte": "mono",
    "neutrophil": "neut",
    UNIDENTIFIED: "unid.",
    STATUS_ERROR: "err.",
}
_FULL = {**{label: label for label in _SHORT}, STATUS_ERROR: "errors"}

# From wide to narrow: the headings, and what stands between count and percentage.
_LAYOUTS = ((_FULL, " "), (_SHORT, " "), (_SHORT, "\n"))

_STYLE: Any = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False}


def print_differential(table: pd.DataFrame, console: Console, *, reviewed: bool = False) -> None:
    """Print count and percentage of each class per group, the mean confidence per class, what to look at.

    Parameters
    ----------
    table : DataFrame
        As `wbc_batch.report.differential` returns it.
    console : rich.console.Console
        Its width decides how closely the table is set.
    reviewed : bool
        The labels are those after a review: no confidence and nothing to look at, which are of the model's.
    """
    _print_fitting(console, (_view(table, *layout, reviewed) for layout in _LAYOUTS))
    groups = table["group"].nunique()
    if groups > MAX_GROUPS:
        console.print(f"{groups - MAX_GROUPS} more groups are in differential.csv")
    if not reviewed:
        _print_flags(table, console)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the agreement table, and how far the runs agree.

    Parameters
    ----------
    comparison : Comparison
    console : rich.console.Console
        Its width decides how closely the table is set.
    """
    found = comparison.agreement
    names = comparison.first.name, comparison.second.name
    _print_plainly(console, f"Labels of {names[0]} in rows, of {names[1]} in columns:\n")
    tables = (_pairs(found.table.tolist(), headings) for headings in (_FULL, _SHORT))
    _print_fitting(console, tables)
    kappa = "" if found.kappa != found.kappa else f", Cohen's kappa {found.kappa:.3f}"
    share = f" ({100 * found.fraction:.1f} %)" if found.cells else ""
    _print_plainly(
        console,
        f"\nOf {found.cells:,} cells that both runs classified, {found.agreeing:,} have the same label"
        f"{share}{kappa}; of {len(comparison.common):,} cells that both have, "
        f"{len(comparison.changed):,} changed; in one run only: {comparison.only_first:,} of {names[0]}, "
        f"{comparison.only_second:,} of {names[1]}",
    )


def _print_flags(table: pd.DataFrame, console: Console) -> None:
    """Print what to look at in whole groups, a line for each, with the first groups named."""
    flagged: dict[str, list[str]] = {}
    for flag in group_flags(table):
        flagged.setdefault(flag.flag, []).append(flag.group or UNNAMED_GROUP)
    for number, (what, names) in enumerate(flagged.items()):
        above = "" if number else "\n"
        _print_plainly(console, f"{above}{what}: {first_few(names)}")


def _print_plainly(console: Console, text: str) -> None:
    """Print a sentence with names in it, in which nothing is markup."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def _print_fitting(console: Console, views: Iterable[Table]) -> None:
    """Print the first table that is no wider than the console; if none is, the last."""
    unbounded = console.options.update(max_width=1000)
    for view in views:
        if console.measure(view, options=unbounded).minimum <= console.width:
            break
    console.print(view)


def _pairs(counts: Iterable[Iterable[int]], headings: Mapping[str, str]) -> Table:
    table = Table(**_STYLE)
    table.add_column(no_wrap=True)
    for label in LABELS:
        table.add_column(headings[label], justify="right", no_wrap=True)
    for label, row in zip(LABELS, counts, strict=True):
        table.add_row(label, *(f"{count:,}" if count else "" for count in row))
    return table


def _view(table: pd.DataFrame, headings: Mapping[str, str], between: str, reviewed: bool) -> Table:
    view = Table(header_style="bold", **_STYLE)
    view.add_column("group", overflow="fold", min_width=10)
    for label in ROWS:
        view.add_column(headings[label], justify="right", no_wrap=True)
    groups = by_group(table, MAX_GROUPS)
    for name, rows in groups.items():
        view.add_row(Text(visible(name) or UNNAMED_GROUP), *_cells(rows, between))
    view.add_section()
    pooled = _pooled(table)
    if len(groups) > 1:
        view.add_row(Text("all groups", style="bold"), *_cells(pooled, between))
    if not reviewed:
        view.add_row(Text("mean confidence", style="dim"), *_confidences(pooled))
    return view


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Return counts, percentages and mean confidences of all groups together."""
    weighted = table.assign(confidence=table["mean_confidence"] * table["count"])
    sums = weighted.groupby("label")[["count", "confidence"]].sum(min_count=1)
    pooled = sums.reindex(list(ROWS)).fillna({"count": 0}).astype({"count": int})
    pooled["mean_confidence"] = pooled["confidence"] / pooled["count"].where(pooled["count"] > 0)
    identified = pooled.loc[list(CLASSES), "count"].sum()
    pooled["percent"] = 100.0 * pooled["count"] / (identified or float("nan"))
    pooled.loc[[UNIDENTIFIED, STATUS_ERROR], "percent"] = float("nan")
    return pooled.reset_index()


def _cells(rows: pd.DataFrame, between: str) -> list[Text]:
    return [
        Text(f"{row['count']:,}")
        if pd.isna(row["percent"])
        else Text.assemble((f"{row['count']:,}{between}", "dim"), f"{row['percent']:5.1f}%")
        for row in rows.to_dict("records")
    ]


def _confidences(rows: pd.DataFrame) -> list[Text]:
    return [
        Text("" if pd.isna(mean) else f"{mean:.3f}", style="dim")
        for mean in rows["mean_confidence"]
    ]
