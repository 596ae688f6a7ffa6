"""How a model confuses the classes, from the figures that its bundle carries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.schema import CHOSEN_ON, CLASSES, DRAWN, NOT_KNOWN, NOT_TRAINED_ON

__all__ = ["ENOUGH", "Confusion", "confusion_from_record", "confusion_of"]

#: What a data set may have been to the model, the most telling first. Cells that it was trained on
#: say too little of its mistakes, and drawn cells say nothing of real ones.
_ROLES = (NOT_TRAINED_ON, CHOSEN_ON, NOT_KNOWN)

#: Cells of each class, fewer of which say nothing of how it is confused.
ENOUGH = 20


@dataclass(frozen=True)
class Confusion:
    """Labelled cells by true class and by what the model said.

    Attributes
    ----------
    counts : tuple of tuple of int
        True class in rows, predicted class in columns, in the order of `wbc_batch.schema.CLASSES`.
    data_sets : tuple of str
        Whose cells they are.
    roles : tuple of str
        What each was to the model: ``not trained on``, ``chosen on`` or ``not known``.
    unidentified : tuple of int or None
        Cells of each class that the model left unidentified, and that are not in `counts`. None where they
        are, by its best guess.
    """

    counts: tuple[tuple[int, ...], ...]
    data_sets: tuple[str, ...]
    roles: tuple[str, ...]
    unidentified: tuple[int, ...] | None

    @property
    def table(self) -> NDArray[np.int64]:
        """The counts, with those left unidentified as the last column where these are known."""
        counts = np.array(self.counts, np.int64)
        return counts if self.unidentified is None else np.column_stack([counts, self.unidentified])

    def to_record(self) -> dict[str, Any]:
        """Return plain values for JSON, which `confusion_from_record` reads."""
        return asdict(self)


def confusion_of(metrics: Mapping[str, Any]) -> Confusion | None:
    """Add up the confusion matrices of the cells that tell most of a model's mistakes.

    Parameters
    ----------
    metrics : mapping
        `wbc_batch.classifier.Bundle.metrics`, as ``wbc-batch evaluate --card`` writes them.

    Returns
    -------
    Confusion or None
        Of all data sets that the model was not trained on; where these hold fewer than `ENOUGH` cells of a
        class, of those that its epoch was chosen on, too. None if there are still too few.
    """
    data_sets = {
        name: figures
        for name, figures in (metrics.get("data_sets") or {}).items()
        if name != DRAWN and figures.get("confusion")
    }
    names: list[str] = []
    for role in _ROLES:
        names += [name for name, figures in data_sets.items() if figures.get("role") == role]
        if not names:
            continue
        told_apart = all(data_sets[name].get("confusion_identified") for name in names)
        guessed = _sum(data_sets[name]["confusion"] for name in names)
        counts = guessed
        if told_apart:
            counts = _sum(data_sets[name]["confusion_identified"] for name in names)
        if counts.sum(axis=1).min() >= ENOUGH:
            return Confusion(
                tuple(map(tuple, counts.tolist())),
                tuple(names),
                tuple(data_sets[name]["role"] for name in names),
                tuple((guessed - counts).sum(axis=1).tolist()) if told_apart else None,
            )
    return None


def _sum(tables: Iterable[Sequence[Sequence[int]]]) -> NDArray[np.int64]:
    return np.sum([np.asarray(table, np.int64) for table in tables], axis=0)


def confusion_from_record(record: Any) -> Confusion | None:
    """Read what `Confusion.to_record` wrote; None if it is missing or damaged."""
    try:
        counts = np.asarray(record["counts"], np.int64)
        if counts.shape != (len(CLASSES), len(CLASSES)):
            return None
        unidentified = record.get("unidentified")
        if record.get("identified"):  # of earlier versions, which did not record how many were not
            unidentified = [0] * len(CLASSES)
        found = Confusion(
            tuple(map(tuple, counts.tolist())),
            tuple(map(str, record["data_sets"])),
            tuple(map(str, record["roles"])),
            None if unidentified is None else tuple(map(int, unidentified)),
        )
        return found if found.table.min() >= 0 else None
    except (AttributeError, TypeError, KeyError, ValueError):
        return None
