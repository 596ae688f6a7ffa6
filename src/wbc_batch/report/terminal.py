"""The differential on a terminal."""

from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbc_batch.report.differential import ERROR, LABELS
from wbc_batch.schema import CLASSES, UNIDENTIFIED

__all__ = ["print_differential"]

#: Groups that are printed at most; ``differential.csv`` holds all.
MAX_GROUPS = 40

_SHORT = {
    "basophil": "baso",
    "eosinophil": "eos",
    "lymphocyte": "lymph",
    "monocyte": "mono",
    "neutrophil": "neut",
    UNIDENTIFIED: "unid.",
    ERROR: "err.",
}
_FULL = {**{label: label for label in _SHORT}, ERROR: "errors"}

# From wide to narrow: the headings, and what stands between count and percentage.
_LAYOUTS = ((_FULL, " "), (_SHORT, " "), (_SHORT, "\n"))


def print_differential(table: pd.DataFrame, console: Console) -> None:
    """Print count and percentage of each class per group, and the mean confidence per class.

    Parameters
    ----------
    table : DataFrame
        As `wbc_batch.report.differential` returns it.
    console : rich.console.Console
        Its width decides how closely the table is set.
    """
    unbounded = console.options.update(max_width=1000)
    for headings, between in _LAYOUTS:
        view = _view(table, headings, between)
        if console.measure(view, options=unbounded).minimum <= console.width:
            break
    console.print(view)
    groups = table["group"].nunique()
    if groups > MAX_GROUPS:
        console.print(f"{groups - MAX_GROUPS} more groups are in differential.csv")


def _view(table: pd.DataFrame, headings: Mapping[str, str], between: str) -> Table:
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    view.add_column("group", overflow="fold", min_width=10)
    for label in (*CLASSES, UNIDENTIFIED, ERROR):
        view.add_column(headings[label], justify="right", no_wrap=True)
    groups = list(table.groupby("group", sort=False))
    for name, rows in groups[:MAX_GROUPS]:
        view.add_row(Text(str(name)), *_cells(rows, between))
    view.add_section()
    pooled = _pooled(table)
    if len(groups) > 1:
        view.add_row(Text("all groups", style="bold"), *_cells(pooled, between))
    view.add_row(Text("mean confidence", style="dim"), *_confidences(pooled))
    return view


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Return counts, percentages and mean confidences of all groups together."""
    weighted = table.assign(confidence=table["mean_confidence"] * table["count"])
    sums = weighted.groupby("label")[["count", "confidence"]].sum(min_count=1)
    pooled = sums.reindex(list(LABELS)).fillna({"count": 0}).astype({"count": int})
    pooled["mean_confidence"] = pooled["confidence"] / pooled["count"].where(pooled["count"] > 0)
    identified = pooled.loc[list(CLASSES), "count"].sum()
    pooled["percent"] = 100.0 * pooled["count"] / (identified or float("nan"))
    pooled.loc[[UNIDENTIFIED, ERROR], "percent"] = float("nan")
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
