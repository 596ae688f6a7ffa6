"""Diagrams of an evaluation, as PNG files and as SVG that takes the colours of the page around it."""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wbc_batch.evaluation.figures import Evaluation, exact_limits
from wbc_batch.schema import CLASSES

__all__ = ["confusion", "coverage", "reliability", "to_png", "to_svg"]

# In SVG these become colours of the page.
_INK, _FAINT, _POINT = "#1b1f24", "#b9c0c7", "#2f7fb5"
_STYLE: Any = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "wbc",
    "text.parse_math": False,  # a data set may be called $1
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix, shaded by the share of each true class."""
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.6 else _INK
        text = f"{count}\n{100 * shares[row, column]:.0f} %" if count else ""
        axes.text(column, row, text, ha="center", va="center", color=ink)
    places = range(len(CLASSES))
    axes.set_xticks(places, CLASSES, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def reliability(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Draw a reliability diagram per data set: how often cells of each confidence are right.

    Larger dots stand for more cells; the lines are exact 95 % limits.
    """
    columns = min(len(evaluations), 3)
    rows = -(-len(evaluations) // columns)
    side = 3.4 if len(evaluations) > 1 else 4.2
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    for number, (name, evaluation) in enumerate(evaluations.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_reliability(axes, evaluation)
        if len(evaluations) > 1:
            axes.set_title(name)
    return figure


def coverage(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Draw accuracy over coverage: what leaving out the least confident cells gains.

    A dot marks where the model's own thresholds for unidentified cells lead.
    """
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, evaluation in evaluations.items():
        kept = [100 * point.coverage for point in evaluation.coverage]
        right = [100 * point.accuracy for point in evaluation.coverage]
        (line,) = axes.plot(kept, right, label=name)
        axes.plot(
            100 * evaluation.identified,
            100 * evaluation.accuracy_identified,
            "o",
            color=line.get_color(),
            markersize=5,
        )
    axes.set(xlabel="most confident cells kept, %", ylabel="accuracy, %", xlim=(101, 9))
    axes.set_ylim(top=100.5)
    axes.grid(color=_FAINT, linewidth=0.5, alpha=0.5)
    if len(evaluations) > 1:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def to_png(draw: Callable[[], Figure]) -> bytes:
    """Draw on white."""
    return _save(draw, "png")


def to_svg(draw: Callable[[], Figure], name: str) -> str:
    """Draw for a place inside a page.

    Parameters
    ----------
    draw : callable
        Gives the figure.
    name : str
        Of letters and digits, different for each drawing of the page.

    Returns
    -------
    str
        An ``svg`` element, transparent. Its ink follows the variables of ``base.css``.
    """
    text = _save(draw, "svg").decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in ((_INK, "--ink"), (_FAINT, "--muted"), (_POINT, "--link")):
        text = text.replace(colour, f"var({variable})")
    return text


def _draw_reliability(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--")
    for found in evaluation.reliability:
        if found.cells:
            limits = exact_limits(round(found.accuracy * found.cells), found.cells)
            axes.plot([found.confidence] * 2, limits, color=_POINT, linewidth=1.2)
            size = 10 + 140 * found.cells / evaluation.cells
            axes.scatter(found.confidence, found.accuracy, size, color=_POINT, zorder=3)
    axes.set(xlabel="confidence", ylabel="fraction right", xlim=(0.15, 1.04), ylim=(-0.02, 1.04))
    axes.set_box_aspect(1)


def _save(draw: Callable[[], Figure], kind: str) -> bytes:
    with mpl.rc_context(_STYLE):
        file = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else {}
        draw().savefig(file, format=kind, dpi=150, transparent=kind == "svg", metadata=nothing)
    return file.getvalue()
