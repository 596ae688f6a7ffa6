"""The model card, written from what was measured."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from wbc_batch.classifier import Bundle
from wbc_batch.evaluation.assessment import Assessment
from wbc_batch.evaluation.figures import COVERAGES, Evaluation
from wbc_batch.evaluation.unknown import UnknownEvaluation
from wbc_batch.pages import decimals, percent
from wbc_batch.report.agreement import ClassFigures
from wbc_batch.schema import CLASSES, DRAWN
from wbc_batch.training.calibrate import FITTED
from wbc_batch.training.lineage import AVERAGE_OF, STARTED_FROM, trainings

__all__ = ["write_card"]

# Published data sets, by the name that the training command gave them.
_SOURCES = {
    "pbc": "PBC: Acevedo et al. 2020, doi 10.17632/snkd93bnjr.1, CC BY 4.0.",
    "raabin": "Raabin-WBC: Kouzehkanan et al. 2022, doi 10.1038/s41598-021-04426-x, CC BY 4.0.",
    "bccd": "BCCD: github.com/Shenggan/BCCD_Dataset, MIT; its labels are known to be noisy.",
}


def write_card(bundle: Bundle, assessment: Assessment) -> str:
    """Write a model card.

    Parameters
    ----------
    bundle : Bundle
    assessment : Assessment
        Of this model.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        f"# {bundle.name}",
        "For research use only. Not for diagnostic procedures.",
        f"Classifies a crop of one stained leukocyte as {', '.join(CLASSES)}, or leaves it unidentified. "
        f"Network `{bundle.architecture}`, {bundle.preprocessing.input}, weights licensed under "
        f"{bundle.licence}, SHA-256 `{bundle.sha256}`.",
        "## Training",
        *_training(bundle),
        f"A cell is left unidentified if its confidence is below {bundle.rejection.min_confidence:g} or its "
        f"novelty is above {bundle.rejection.max_novelty:g}.",
        "## Figures",
        *_figures(assessment),
        "## Limits",
        "The training cells come from few patients, microscopes and stains. Check the unidentified and "
        "the least confident cells of your own laboratory before you use a count. Band and segmented "
        "neutrophils are one class; immature granulocytes, blasts, erythroblasts and platelets belong to "
        "none, and not all of them are left unidentified.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _training(bundle: Bundle) -> list[str]:
    training = bundle.training
    if "cells" not in training:
        return [
            "This model was not trained by `wbc-batch train`; what it was trained on is not known."
        ]
    rows = [
        (f"{name} ({kind})", *(str(counts[c]) for c in CLASSES))
        for kind, key in (("training", "cells"), ("validation", "validation_cells"))
        for name, counts in training.get(key, {}).items()
    ]
    parts = [
        _table(("cells", *CLASSES), rows),
        *(_SOURCES[name] for name in _data_sets(training) if name in _SOURCES),
    ]
    if "start" in training:
        parts.append(f"Training started from {training['start']}.{_before(training)}")
    if "best_epoch" in training:
        parts.append(f"{_kept(training)}.")
    if AVERAGE_OF in training:
        members = Counter(map(_member, training[AVERAGE_OF]))
        lines = [f"- {n} x: {member}" for member, n in members.items()]
        parts += ["The weights are the mean of the weights from these trainings:", "\n".join(lines)]
    if "validation_cells" in training:
        parts.append(_calibration(bundle))
    if bundle.size_evidence is not None:
        sizes = zip(bundle.classes, bundle.size_evidence.medians, strict=True)
        parts.append(
            "Where red cells are visible around the leukocyte, the diameter of its nucleus, measured in red "
            "cell diameters, also counts; typical values are "
            + ", ".join(f"{size:.2f} ({name})" for name, size in sizes)
            + "."
        )
    return parts


def _calibration(bundle: Bundle) -> str:
    """Say what was fitted on the model's own cells, and what it kept where these were too few."""
    fitted = bundle.training.get(FITTED, ("temperature", "novelty"))
    scored = bundle.novelty_scale is not None
    temperature, here = (
        f"The temperature ({bundle.temperature:.3f})",
        "fitted on the validation cells",
    )
    if scored and len(fitted) == 2:
        return f"{temperature} and the novelty scale were {here}."
    before = "still that of the model that the training started from, because there are too few new cells"
    said = [f"{temperature} {f'was {here}' if 'temperature' in fitted else f'is {before}'}."]
    if scored and "novelty" in fitted:
        said.append(f"The novelty scale was {here}.")
    elif scored:
        said.append(
            f"The novelty score is {before}; its scale was widened if that was needed for the "
            "new cells to count as known."
        )
    return " ".join(said)


def _data_sets(training: Mapping[str, Any]) -> list[str]:
    """Names of all that the weights were trained on, in this training or before."""
    names = (name for record in trainings(training) for name in record.get("cells", {}))
    return list(dict.fromkeys(names))


def _before(training: Mapping[str, Any]) -> str:
    """Say what the model that was trained on had seen."""
    if STARTED_FROM not in training:
        return ""
    names = _data_sets(training[STARTED_FROM])
    if not names:
        return " What that model was trained on is not known."
    return f" That model was trained on {', '.join(names)}."


def _kept(training: Mapping[str, Any]) -> str:
    epochs = training.get("epochs", training["settings"]["epochs"])
    best = training["settings"].get("keep", "best") == "best"
    reason = "for its balanced accuracy on the validation cells" if best else "as the last one"
    return f"Epoch {training['best_epoch']} of {epochs} was kept {reason}"


def _member(training: Mapping[str, Any]) -> str:
    """Tell one of several trainings from the others."""
    drawn = sum(training["cells"].get(DRAWN, {}).values())
    cells = f"with {drawn} drawn cells" if drawn else "without drawn cells"
    return f"seed {training['settings']['seed']}, {cells}. {_kept(training)}."


def _figures(assessment: Assessment) -> list[str]:
    data_sets = assessment.data_sets
    parts = []
    if "Command" in assessment.facts:
        parts += ["This command prints all figures:", f"```sh\n{assessment.facts['Command']}\n```"]
    if "Computed on" in assessment.facts:
        parts.append(
            f"The figures were computed on {assessment.facts['Computed on']}; other devices, backends and "
            "precisions give slightly different ones."
        )
    parts += [
        "Accuracy counts the best guess for every cell, including those left unidentified; its exact 95 % "
        "interval is in parentheses. All figures are percentages, except the number of cells and NLL, the "
        "mean negative log-likelihood.",
        _figures_table(assessment),
        "Recall per class, with the number of cells:",
        _recall_table(data_sets),
        "Accuracy where only the most confident cells are kept:",
        _coverage_table(data_sets),
    ]
    parts += [_neutrophils(name, e) for name, e in data_sets.items() if e.neutrophils]
    if assessment.unknown:
        parts += [
            "Cells of no class: the percentage left unidentified, and the area under the ROC curve of "
            "the novelty score against known cells.",
            _unknown_table(assessment.unknown_sets),
        ]
    return parts


def _figures_table(assessment: Assessment) -> str:
    head = (
        *("data set", "role", "cells", "accuracy", "balanced", "macro F1", "ECE", "NLL"),
        *("identified", "of these right"),
    )
    rows = [
        (
            name,
            assessment.roles[name],
            str(e.cells),
            f"{percent(e.accuracy)} ({percent(e.accuracy_limits[0])}–{percent(e.accuracy_limits[1])})",
            *map(percent, (e.balanced_accuracy, e.macro_f1, e.calibration_error)),
            f"{e.log_loss:.3f}",
            *map(percent, (e.identified, e.accuracy_identified)),
        )
        for name, e in assessment.data_sets.items()
    ]
    return _table(head, rows)


def _recall_table(data_sets: dict[str, Evaluation]) -> str:
    rows = [(name, *(_recall(e.classes[c]) for c in CLASSES)) for name, e in data_sets.items()]
    return _table(("data set", *CLASSES), rows)


def _recall(figures: ClassFigures) -> str:
    return f"{percent(figures.recall)} ({figures.cells})" if figures.cells else "–"


def _coverage_table(data_sets: dict[str, Evaluation]) -> str:
    head = ("data set", *(f"{100 * part:.0f} %" for part in COVERAGES))
    rows = [
        (name, *(percent(e.accuracy_at(part)) for part in COVERAGES))
        for name, e in data_sets.items()
    ]
    return _table(head, rows)


def _neutrophils(name: str, evaluation: Evaluation) -> str:
    kinds = ", ".join(
        f"{kind} {percent(figures.recall)} % of {figures.cells}"
        for kind, figures in evaluation.neutrophils.items()
    )
    balanced = percent(evaluation.neutrophils_balanced)
    return f"Neutrophils of {name} that are recognized: {kinds}; mean of both {balanced} %."


def _unknown_table(unknown: dict[str, UnknownEvaluation]) -> str:
    against = list(dict.fromkeys(k for e in unknown.values() for k in e.overall.auroc))
    head = ("cells of no class", "cells", "unidentified", *(f"AUROC, {name}" for name in against))
    rows = [
        (
            f"{name}: {kind}",
            str(figures.cells),
            percent(figures.unidentified),
            *(decimals(figures.auroc[known].novelty, 3) for known in against),
        )
        for name, e in unknown.items()
        for kind, figures in (*e.kinds.items(), ("all", e.overall))
    ]
    return _table(head, rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
