"""Synthetic cells as a data set."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.preprocessing import Preprocessing, stacked
from wbc_batch.datasets.labelled import LabelledCells, prepare
from wbc_batch.errors import InputError
from wbc_batch.schema import CLASSES, DRAWN
from wbc_batch.synthetic import draw_cells, draw_cells_elsewhere

__all__ = ["drawn_for_evaluation", "drawn_for_training", "refuse_drawn_name"]

# Those of training and of evaluation never share one.
_TRAINING, _EVALUATION = 1, 2
# Pictures at a time: they are large, canonical crops are not.
_AT_ONCE = 100


def refuse_drawn_name(*named: Iterable[str]) -> None:
    """Refuse a data set that nobody could tell from synthetic cells.

    Raises
    ------
    InputError
        If one of the names is theirs.
    """
    if any(DRAWN in names for names in named):
        raise InputError(
            f"a data set is called {DRAWN!r}, like the synthetic cells; rename it with NAME=DATASET"
        )


def drawn_for_training(count: int, preprocessing: Preprocessing) -> LabelledCells:
    """Draw cells of laboratories that differ as much as they can (`wbc_batch.synthetic.elsewhere`)."""
    return _drawn(draw_cells_elsewhere, count, _TRAINING, preprocessing)


def drawn_for_evaluation(count: int, preprocessing: Preprocessing) -> LabelledCells:
    """Draw cells as a textbook shows them (`wbc_batch.synthetic.draw_cells`)."""
    return _drawn(draw_cells, count, _EVALUATION, preprocessing)


def _drawn(
    draw: Callable[[int, int], tuple[NDArray[np.uint8], list[str]]],
    count: int,
    seed: int,
    preprocessing: Preprocessing,
) -> LabelledCells:
    crops, labels = [], []
    for start in range(0, count, _AT_ONCE):
        images, names = draw(min(_AT_ONCE, count - start), seed * 10_000 + start)
        crops += [prepare(image, preprocessing) for image in images]
        labels += [CLASSES.index(name) for name in names]
    members = tuple(f"{seed}-{n}" for n in range(count))
    return LabelledCells((DRAWN,) * count, members, np.array(labels, np.intp), *stacked(crops))
