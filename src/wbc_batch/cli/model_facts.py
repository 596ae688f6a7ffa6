"""What a model is, what it was trained on and how well it does, on a terminal."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbc_batch.errors import visible
from wbc_batch.pages import percent
from wbc_batch.schema import CLASSES
from wbc_batch.training.lineage import AVERAGE_OF, trainings

if TYPE_CHECKING:
    from wbc_batch.classifier import Bundle

__all__ = ["print_model"]

_USES = {"cells": "training", "validation_cells": "validation"}


def print_model(bundle: "Bundle", console: Console) -> None:
    """Print what matters of a model; ``--json`` has all of it.

    Parameters
    ----------
    bundle : Bundle
    console : rich.console.Console
        Its width decides how closely the tables are set.
    """
    for name, value in _facts(bundle).items():
        console.print(
            f"{name + ':':<14}{visible(value)}", markup=False, highlight=False, soft_wrap=True
        )
    _print_cells(bundle, console)
    _print_figures(bundle.metrics.get("data_sets") or {}, console)


def _facts(bundle: "Bundle") -> dict[str, str]:
    facts = {
        "name": bundle.name,
        "network": f"{bundle.architecture}, {bundle.preprocessing.input}",
        "licence": bundle.licence,
        "SHA-256": bundle.sha256,
        "directory": str(bundle.path),
        "precisions": f"fp32, bf16, fp16{', int8' if bundle.quantised else ''}",
    }
    if compared := bundle.quantised.get("comparison"):
        facts["int8"] = (
            f"accuracy {compared['accuracy']:.1f} % on {compared['cells']} validation cells (fp32: "
            f"{compared['accuracy_fp32']:.1f} %); {compared['same_label']:.1f} % of the labels are "
            "the same as in fp32"
        )
    limits = [f"below a confidence of {bundle.rejection.min_confidence:g}"]
    if bundle.novelty_scale is not None:
        limits.append(f"above a novelty of {bundle.rejection.max_novelty:g}")
    facts["unidentified"] = " or ".join(limits)
    if "start" in bundle.training:
        facts["started from"] = bundle.training["start"]
    if AVERAGE_OF in bundle.training:
        facts["weights"] = f"the average of {len(bundle.training[AVERAGE_OF])} trained models"
    return facts


def _print_cells(bundle: "Bundle", console: Console) -> None:
    """Print what all trainings saw from which the weights come, each data set once."""
    records = list(trainings(bundle.training))
    rows = dict.fromkeys(
        (name, use, *(counts.get(label, 0) for label in CLASSES))
        for key, use in _USES.items()
        for record in records
        for name, counts in record.get(key, {}).items()
    )
    if rows:
        console.print("\nCells used in training")
        _print_table(("data set", "used for"), CLASSES, rows, console)
    if not all("cells" in record for record in records):
        what = "It is not known what else" if rows else "\nIt is not known what"
        console.print(f"{what} it was trained on.")


def _print_figures(data_sets: dict[str, Any], console: Console) -> None:
    if not data_sets:
        console.print(
            "\nHow well it performs is not known; measure it with wbc-batch evaluate --card."
        )
        return
    rows = (
        (
            name,
            found["role"],
            found["cells"],
            f"{percent(found['accuracy'])} ({'–'.join(map(percent, found['accuracy_limits']))})",
            percent(found["identified"]),
            _share(found["accuracy_identified"]),
        )
        for name, found in data_sets.items()
    )
    console.print(
        "\nHow well it performs, in percent (exact 95 % limits in parentheses; right: of the "
        "identified cells):"
    )
    headings = ("cells", "accuracy", "identified", "right")
    _print_table(("data set", "role"), headings, rows, console)


def _share(fraction: float | None) -> str:
    return percent(float("nan") if fraction is None else fraction)  # no cell is identified


def _print_table(
    names: Iterable[str], numbers: Iterable[str], rows: Iterable[tuple[Any, ...]], console: Console
) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, heading in enumerate(names):
        table.add_column(heading, overflow="fold", no_wrap=place > 0, min_width=10)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(visible(str(value))) for value in row))
    console.print(table)
