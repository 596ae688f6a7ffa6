"""Diagrams of an evaluation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wbc_batch.evaluation.figures import Evaluation
from wbc_batch.pages.drawing import FAINT, POINT, draw_confusion
from wbc_batch.report.limits import exact_limits
from wbc_batch.schema import CLASSES

__all__ = ["confusion", "coverage", "reliability"]


def confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix, shaded by the share of each true class."""
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    draw_confusion(axes, np.array(evaluation.confusion), CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
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
    # As far as the points are drawn, or a model that identifies few cells has its dot.
    lowest = min([10.0, *(100 * evaluation.identified for evaluation in evaluations.values())])
    axes.set(xlabel="most confident cells kept, %", ylabel="accuracy, %", xlim=(101, lowest - 1))
    axes.set_ylim(top=100.5)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.5)
    if len(evaluations) > 1:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_reliability(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    for found in evaluation.reliability:
        if found.cells:
            limits = exact_limits(round(found.accuracy * found.cells), found.cells)
            axes.plot([found.confidence] * 2, limits, color=POINT, linewidth=1.2)
            size = 10 + 140 * found.cells / evaluation.cells
            axes.scatter(found.confidence, found.accuracy, size, color=POINT, zorder=3)
    axes.set(xlabel="confidence", ylabel="fraction right", xlim=(0.15, 1.04), ylim=(-0.02, 1.04))
    axes.set_box_aspect(1)
