"""Evaluations as tables on a terminal."""

import math
from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbc_batch.errors import visible
from wbc_batch.evaluation.assessment import Assessment
from wbc_batch.evaluation.figures import COVERAGES, Evaluation
from wbc_batch.evaluation.unknown import UnknownEvaluation
from wbc_batch.pages import decimals, percent
from wbc_batch.schema import CLASSES

__all__ = ["print_assessment", "print_summary"]


def print_assessment(assessment: Assessment, console: Console) -> None:
    """Print the figures of each data set, in per cent, its confusion matrix, and cells of no class.

    Parameters
    ----------
    assessment : Assessment
    console : rich.console.Console
    """
    for name, evaluation in assessment.data_sets.items():
        console.print(visible("\n".join(_lines(name, evaluation))), highlight=False, markup=False)
        console.print(_confusion(evaluation))
    for name, found in assessment.unknown_sets.items():
        console.print(visible(f"{name}: cells of no class"), highlight=False, markup=False)
        console.print(_unknown(found))


def print_summary(data_sets: Mapping[str, Evaluation], console: Console) -> None:
    """Print one line per data set, in per cent; ``right`` is the accuracy of the identified cells.

    Parameters
    ----------
    data_sets : mapping of str to Evaluation
    console : rich.console.Console
    """
    table = Table(box=SIMPLE, pad_edge=False, title="in percent", title_justify="left")
    table.add_column("data set", overflow="fold")
    for heading in ("cells", "accuracy", "balanced", "macro F1", "ECE", "identified", "right"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, e in data_sets.items():
        values = (e.accuracy, e.balanced_accuracy, e.macro_f1, e.calibration_error)
        shares = (e.identified, e.accuracy_identified)
        numbers = map(percent, (*values, *shares))
        table.add_row(Text(visible(name)), str(e.cells), *numbers)
    console.print(table)


def _lines(name: str, evaluation: Evaluation) -> list[str]:
    lower, upper = evaluation.accuracy_limits
    lines = [
        f"{name}: {evaluation.cells} cells, accuracy {_percent(evaluation.accuracy)} "
        f"({100 * lower:.1f} to {100 * upper:.1f})",
        f"balanced {_percent(evaluation.balanced_accuracy)}, macro F1 "
        f"{_percent(evaluation.macro_f1)}, ECE {_percent(evaluation.calibration_error)}, "
        f"NLL {evaluation.log_loss:.3f}",
        f"identified {_percent(evaluation.identified)}, "
        f"of these right {_percent(evaluation.accuracy_identified)}",
        "right among the most confident "
        + ", ".join(
            f"{100 * c:.0f} %: {_percent(evaluation.accuracy_at(c))}" for c in COVERAGES[1:]
        ),
    ]
    if evaluation.neutrophils:
        kinds = ", ".join(
            f"{kind} {_percent(figures.recall)} of {figures.cells}"
            for kind, figures in evaluation.neutrophils.items()
        )
        lines.append(
            f"neutrophils: {kinds}; mean of both {_percent(evaluation.neutrophils_balanced)}"
        )
    return lines


def _confusion(evaluation: Evaluation) -> Table:
    table = Table("true class", box=SIMPLE, pad_edge=False)
    for heading in (*(name[:4] for name in CLASSES), "recall", "precision"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, row in zip(CLASSES, evaluation.confusion, strict=True):
        figures = evaluation.classes[label]
        table.add_row(label, *map(str, row), _percent(figures.recall), _percent(figures.precision))
    return table


def _unknown(found: UnknownEvaluation) -> Table:
    table = Table("kind", box=SIMPLE, pad_edge=False)
    against = [f"AUROC against {name}" for name in found.overall.auroc]
    for heading in ("cells", "unidentified", *against):
        table.add_column(heading, justify="right")
    for kind, figures in (*found.kinds.items(), ("all", found.overall)):
        areas = [decimals(separation.novelty, 3) for separation in figures.auroc.values()]
        table.add_row(
            Text(visible(kind)), str(figures.cells), _percent(figures.unidentified), *areas
        )
    return table


def _percent(value: float) -> str:
    return percent(value) if math.isnan(value) else f"{percent(value)} %"
