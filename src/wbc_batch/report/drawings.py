"""Diagrams of a run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wbc_batch.files import write_file
from wbc_batch.pages.drawing import FAINT, INK, POINT, draw_confusion, to_png, to_svg
from wbc_batch.report.agreement import Agreement
from wbc_batch.report.differential import BINS, Tally
from wbc_batch.report.ranges import Profile
from wbc_batch.report.throughput import ShardPace
from wbc_batch.schema import CLASS_COLORS, CLASSES, LABELS, UNNAMED_GROUP

__all__ = [
    "MAX_BARS",
    "Drawing",
    "confidences",
    "confusion",
    "differential_bars",
    "group_drawings",
    "shares",
    "throughput",
    "write_drawings",
]

#: Groups in one drawing at most; more of them are bars too thin to tell apart.
MAX_BARS = 60
_NAME = 32


@dataclass(frozen=True)
class Drawing:
    """A diagram that can be drawn.

    Attributes
    ----------
    name : str
        Of its files, without suffix.
    draw : callable
        Gives the figure.
    """

    name: str
    draw: Callable[[], Figure]


def shares(table: pd.DataFrame) -> Figure:
    """Draw a stacked bar per group: the percentages of the identified cells."""
    wide = table.pivot_table(index="group", columns="label", values="percent", sort=False)
    wide = wide.reindex(table["group"].drop_duplicates()).reindex(columns=list(CLASSES))
    wide = wide.fillna(0.0)[:MAX_BARS]
    figure = Figure(figsize=(7.6, 1.3 + 0.27 * len(wide)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(wide))
    start = np.zeros(len(wide))
    for label in CLASSES:
        axes.barh(
            places, wide[label], left=start, height=0.72, color=CLASS_COLORS[label], label=label
        )
        start += wide[label].to_numpy()
    axes.set_yticks(places, [_short(str(name) or UNNAMED_GROUP) for name in wide.index])
    axes.set(xlim=(0, 100), ylim=(len(wide) - 0.5, -0.5), xlabel="% of identified cells")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=5)
    return figure


def confidences(tally: Tally) -> Figure:
    """Draw a histogram of the confidences of each label, with their number."""
    labels = [label for label in LABELS if tally.histogram(label).any()]
    columns = min(max(len(labels), 1), 3)
    rows = max(-(-len(labels) // columns), 1)
    figure = Figure(figsize=(2.6 * columns + 0.2, 1.75 * rows + 0.2), layout="constrained")
    edges = np.linspace(0.0, 1.0, BINS + 1)
    for number, label in enumerate(labels, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.stairs(tally.histogram(label), edges, fill=True, color=CLASS_COLORS[label])
        axes.set_title(f"{label}, {tally.histogram(label).sum():,}", loc="left")
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.yaxis.set_major_locator(_few_whole_ticks())
    figure.supxlabel("confidence", fontsize=10)
    figure.supylabel("cells", fontsize=10)
    return figure


def throughput(paces: Sequence[ShardPace]) -> Figure:
    """Draw the pace of each shard, one worker's work, in the order of the run."""
    figure = Figure(figsize=(7.6, 2.3), layout="constrained")
    axes = figure.subplots()
    numbers = [pace.number + 1 for pace in paces]
    axes.plot(numbers, [pace.rate for pace in paces], "o", color=POINT, markersize=4)
    middle = sum(pace.cells for pace in paces) / sum(pace.seconds for pace in paces)
    axes.axhline(middle, color=FAINT, linewidth=1, linestyle="--")
    axes.set(xlabel="shard", ylabel="cells/s on one worker")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(_few_whole_ticks())
    return figure


def differential_bars(rows: pd.DataFrame, profile: Profile | None) -> Figure:
    """Draw the differential of one group: bars, both pairs of limits, and the chosen ranges.

    Parameters
    ----------
    rows : DataFrame
        Of one group, as `wbc_batch.report.differential` returns them.
    profile : Profile or None
    """
    classes = rows.set_index("label").loc[list(CLASSES)]
    # Fixed margins: finding them anew for each of tens of groups takes seconds.
    figure = Figure(figsize=(6.4, 2.9))
    axes = figure.add_axes((0.17, 0.2, 0.79, 0.66))
    places = np.arange(len(classes))
    if profile is not None:
        for place, label in enumerate(CLASSES):
            if (range_ := profile.percent.get(label)) is not None:
                low = range_.lower or 0.0
                high = 100.0 if range_.upper is None else range_.upper
                axes.barh(
                    place, high - low, left=low, height=0.95, color=FAINT, alpha=0.45, linewidth=0
                )
    axes.barh(
        places, classes["percent"].fillna(0), height=0.56, color=[CLASS_COLORS[c] for c in CLASSES]
    )
    for bottom, top, shift, ink in (
        ("lower", "upper", 0.0, INK),
        ("confusion_lower", "confusion_upper", 0.38, "#59636e"),
    ):
        known = classes[bottom].notna().to_numpy()
        middle = (classes[bottom] + classes[top]) / 2
        half = (classes[top] - classes[bottom]) / 2
        axes.errorbar(
            middle[known], places[known] + shift, xerr=half[known], fmt="none", ecolor=ink,
            elinewidth=1.2, capsize=2.5 if shift == 0.0 else 1.5,
        )  # fmt: skip
    axes.set_yticks(places, CLASSES)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="% of identified cells")
    axes.set_title(_short(str(rows["group"].iloc[0]) or UNNAMED_GROUP, 60), loc="left")
    axes.tick_params(axis="y", length=0)
    return figure


def confusion(known: Agreement) -> Figure:
    """Draw the confusion matrix: known class and the model's label."""
    figure = Figure(figsize=(5.8, 4.4), layout="constrained")
    axes = figure.subplots()
    draw_confusion(axes, known.table[: len(CLASSES)], LABELS)
    axes.set(xlabel="model's label", ylabel="known class", aspect="auto")
    return figure


def write_drawings(folder: Path, drawings: Sequence[Drawing]) -> dict[str, bytes]:
    """Write a PNG and an SVG file of each drawing.

    Returns
    -------
    dict of str to bytes
        The SVG files, by the drawings' names.
    """
    folder.mkdir(exist_ok=True)
    svgs = {drawing.name: to_svg(drawing.draw) for drawing in drawings}
    for drawing in drawings:
        write_file(folder / f"{drawing.name}.png", to_png(drawing.draw))
        write_file(folder / f"{drawing.name}.svg", svgs[drawing.name])
    return svgs


def group_drawings(tables: Mapping[str, pd.DataFrame], profile: Profile | None) -> list[Drawing]:
    """One drawing of the differential per group, with names that any file system takes."""
    digits = len(str(len(tables)))
    return [
        Drawing(
            f"differential-{number:0{digits}d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:60]}",
            partial(differential_bars, rows, profile),
        )
        for number, (name, rows) in enumerate(tables.items(), 1)
    ]


def _short(name: str, most: int = _NAME) -> str:
    """Cut the middle out of a long name."""
    half = most // 2 - 1
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def _few_whole_ticks() -> MaxNLocator:
    return MaxNLocator(4, integer=True)
