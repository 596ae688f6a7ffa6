"""All that is measured of a model at one time: data sets of known cells, and cells of no class."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from wbc_batch.classifier import Bundle, Classifier
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.evaluation.figures import COVERAGES, Evaluation, Judged
from wbc_batch.evaluation.unknown import JudgedUnknown, UnknownEvaluation
from wbc_batch.schema import (
    CHOSEN_ON,
    DRAWN,
    NOT_KNOWN,
    NOT_TRAINED_ON,
    SIMILAR_TO_TRAINING,
    TRAINED_ON,
)
from wbc_batch.training.lineage import trainings, uses_of

__all__ = ["Assessment", "facts_of", "role"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assessment:
    """What a model says of several data sets, and how good that is.

    Attributes
    ----------
    title : str
        The model's name.
    facts : dict of str to str
        Where the figures come from: command, versions, model.
    known : dict of str to Judged
        By data set.
    roles : dict of str to str
        What each of these data sets was to the model, see `role`.
    unknown : dict of str to JudgedUnknown
        By data set.
    """

    title: str
    facts: dict[str, str]
    known: dict[str, Judged]
    roles: dict[str, str]
    unknown: dict[str, JudgedUnknown] = field(default_factory=dict)

    @property
    def data_sets(self) -> dict[str, Evaluation]:
        """Figures of the known cells, by data set."""
        return {name: judged.evaluation for name, judged in self.known.items()}

    @property
    def unknown_sets(self) -> dict[str, UnknownEvaluation]:
        """Figures of the unknown cells, by data set."""
        return {name: judged.evaluation for name, judged in self.unknown.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN becomes None."""
        figures = {
            "title": self.title,
            "facts": self.facts,
            "data_sets": {
                name: {"role": self.roles[name]} | asdict(evaluation)
                for name, evaluation in self.data_sets.items()
            },
            "unknown": {name: asdict(found) for name, found in self.unknown_sets.items()},
        }
        return _without_nan(figures)

    def metrics(self) -> dict[str, Any]:
        """Return the figures that a bundle carries: `to_dict` without the points of the curves."""
        figures = self.to_dict()
        for found in figures["data_sets"].values():
            del found["reliability"]
            found["coverage"] = [p for p in found["coverage"] if p["coverage"] in COVERAGES]
        return figures


def role(bundle: Bundle, name: str, cells: LabelledCells) -> str:
    """Say what a data set was to a model, so that nobody takes training figures for a test.

    A data set was trained on if a training had one of this name, or if one of its images is among those
    that the bundle lists; a warning says how many are.

    Parameters
    ----------
    bundle : Bundle
    name : str
        Of the data set.
    cells : LabelledCells

    Returns
    -------
    str
        ``trained on``, ``similar to training`` (drawn cells), ``chosen on``, ``not trained on`` or
        ``not known``.

    Raises
    ------
    ModelError
        If the bundle's list of images is damaged.
    """
    records = list(trainings(bundle.training))
    uses = uses_of(bundle, cells.hashes)
    for use, part, found in (
        ("training", "cells", SIMILAR_TO_TRAINING if name == DRAWN else TRAINED_ON),
        ("validation", "validation_cells", CHOSEN_ON),
    ):
        if any(name in record.get(part, {}) for record in records):
            return found
        if use in uses:
            _log.warning(
                "%d of the %d images of %s were used for the %s of this model, such as %s, so the whole data "
                "set counts as %r; remove them to test the model on the others",
                *(uses.count(use), len(cells), name, use, cells.members[uses.index(use)], found),
            )
            return found
    known = all("cells" in record for record in records)
    return NOT_TRAINED_ON if known else NOT_KNOWN


def facts_of(classifier: Classifier, command: str) -> dict[str, str]:
    """State which model was measured, and how.

    Parameters
    ----------
    classifier : Classifier
    command : str
        The command line; left out if empty.

    Returns
    -------
    dict of str to str
    """
    facts = {
        "Command": command,
        "Model": classifier.name,
        "SHA-256 of the weights": classifier.sha256,
        "Unidentified": f"confidence below {classifier.bundle.rejection.min_confidence:g}, or novelty above "
        f"{classifier.bundle.rejection.max_novelty:g}",
        "Computed on": f"{classifier.device}, {classifier.backend} in {classifier.precision}",
        "Versions": f"wbc-napari {version('wbc-napari')}, torch {version('torch')}, "
        f"Python {platform.python_version()}",
    }
    return {name: value for name, value in facts.items() if value}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value
