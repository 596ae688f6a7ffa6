"""Evaluations as tables on a terminal."""

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from wbc_batch.schema import CLASSES
from wbc_batch.training.evaluate import Evaluation

__all__ = ["print_evaluations"]


def print_evaluations(evaluations: Mapping[str, Evaluation], console: Console) -> None:
    """Print the figures of each data set, in per cent, and its confusion matrix.

    Parameters
    ----------
    evaluations : mapping of str to Evaluation
    console : rich.console.Console
    """
    for name, evaluation in evaluations.items():
        lines = (
            f"{name}: {evaluation.cells} cells, accuracy {_percent(evaluation.accuracy)}",
            f"balanced {_percent(evaluation.balanced_accuracy)}, macro F1 "
            f"{_percent(evaluation.macro_f1)}, ECE {_percent(evaluation.calibration_error)}",
            f"identified {_percent(evaluation.identified)}, "
            f"of these right {_percent(evaluation.accuracy_identified)}",
        )
        console.print("\n".join(lines), highlight=False, markup=False)
        console.print(_confusion(evaluation))


def _confusion(evaluation: Evaluation) -> Table:
    table = Table("true, as rows", box=SIMPLE, pad_edge=False)
    for heading in (*(name[:4] for name in CLASSES), "recall", "precision"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, row in zip(CLASSES, evaluation.confusion, strict=True):
        figures = evaluation.classes[label]
        table.add_row(label, *map(str, row), _percent(figures.recall), _percent(figures.precision))
    return table


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f} %"
