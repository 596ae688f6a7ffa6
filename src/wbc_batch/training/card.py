"""The model card, written from what was measured."""

from wbc_batch.classifier import Bundle
from wbc_batch.schema import CLASSES
from wbc_batch.training.evaluate import ClassFigures, Evaluation

__all__ = ["write_card"]

# Published data sets, by the name that the training command gave them.
_SOURCES = {
    "pbc": "PBC: Acevedo et al. 2020, doi 10.17632/snkd93bnjr.1, CC BY 4.0.",
    "raabin": "Raabin-WBC: Kouzehkanan et al. 2022, doi 10.1038/s41598-021-04426-x, CC BY 4.0.",
    "bccd": "BCCD: github.com/Shenggan/BCCD_Dataset, MIT; its labels are known to be noisy.",
}


def write_card(bundle: Bundle, evaluations: dict[str, Evaluation]) -> str:
    """Write a model card.

    Parameters
    ----------
    bundle : Bundle
    evaluations : dict of str to Evaluation
        By data set.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        f"# {bundle.name}",
        "For research use only. Not for diagnostic procedures.",
        f"Classifies a crop of one stained leukocyte as {', '.join(CLASSES)}, or leaves it unidentified. "
        f"Network `{bundle.architecture}`, canonical crops of {bundle.preprocessing.size} pixels, "
        f"weights under {bundle.licence}, SHA-256 `{bundle.sha256}`.",
        "## Training",
        _training_table(bundle),
        *(_SOURCES[name] for name in bundle.training.get("cells", {}) if name in _SOURCES),
        f"Epoch {bundle.training['best_epoch'] + 1} of {bundle.training['settings']['epochs']} was kept "
        "for its balanced accuracy on the validation "
        f"cells; there the temperature ({bundle.temperature:.3f}) and the novelty scale were fitted, too. "
        f"A cell is unidentified below a confidence of {bundle.rejection.min_confidence:g} or above a "
        f"novelty of {bundle.rejection.max_novelty:g}.",
        "## Figures",
        "Printed by `wbc-batch evaluate`. Accuracy counts the best guess for every cell, "
        "unidentified ones too.",
        _figures_table(bundle, evaluations),
        "Recall per class, %:",
        _recall_table(evaluations),
        "## Limits",
        "The training cells come from few patients, microscopes and stains. Look at the unidentified and "
        "the least confident cells of your own laboratory before you use a count. Band and segmented "
        "neutrophils are one class; immature granulocytes, blasts, erythroblasts and platelets are none, "
        "and the novelty score does not catch all of them.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _training_table(bundle: Bundle) -> str:
    rows = [
        (f"{name} ({kind})", [str(counts[c]) for c in CLASSES])
        for kind, key in (("training", "cells"), ("validation", "validation_cells"))
        for name, counts in bundle.training.get(key, {}).items()
    ]
    return _table(("cells", *CLASSES), [(name, *counts) for name, counts in rows])


def _role(bundle: Bundle, name: str) -> str:
    """Say what a data set was to the model, so that nobody takes training figures for a test."""
    if name in bundle.training["cells"]:
        return "trained on" if name != "drawn" else "the like trained on"
    return "chosen on" if name in bundle.training["validation_cells"] else "not trained on"


def _figures_table(bundle: Bundle, evaluations: dict[str, Evaluation]) -> str:
    head = (
        "data set",
        "role",
        "cells",
        "accuracy",
        "balanced",
        "macro F1",
        "ECE",
        "identified",
        "of these right",
    )
    rows = [
        (
            name,
            _role(bundle, name),
            str(e.cells),
            *(
                f"{100 * v:.1f}"
                for v in (
                    e.accuracy,
                    e.balanced_accuracy,
                    e.macro_f1,
                    e.calibration_error,
                    e.identified,
                    e.accuracy_identified,
                )
            ),
        )
        for name, e in evaluations.items()
    ]
    return _table(head, rows)


def _recall_table(evaluations: dict[str, Evaluation]) -> str:
    rows = [(name, *(_recall(e.classes[c]) for c in CLASSES)) for name, e in evaluations.items()]
    return _table(("data set", *CLASSES), rows)


def _recall(figures: ClassFigures) -> str:
    return f"{100 * figures.recall:.1f} ({figures.cells})" if figures.cells else "–"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
