"""``evaluation.html``: one self-contained page, without scripts and without network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wbc_batch.classifier import Predictions
from wbc_batch.evaluation import pictures
from wbc_batch.evaluation.assessment import Assessment
from wbc_batch.evaluation.figures import COVERAGES, Judged
from wbc_batch.evaluation.unknown import JudgedUnknown
from wbc_batch.pages import environment, picture_uri
from wbc_batch.pages.drawing import inline_svg, to_svg
from wbc_batch.schema import CLASSES, UNIDENTIFIED

__all__ = ["render_page"]

#: Mistakes of one data set that the page shows at most.
MAX_MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """A cell that the model is wrong about, as the page shows it.

    Attributes
    ----------
    name, member : str
        File name, and the whole way to it inside its data set.
    true, predicted : str
    confidence : float
    unidentified : bool
        The model does not decide this cell: its guess is wrong, but was not given out.
    picture : str
        Canonical crop as a data URI.
    """

    name: str
    member: str
    true: str
    predicted: str
    confidence: float
    unidentified: bool
    picture: str


def render_page(assessment: Assessment, kicker: str, lead: str) -> str:
    """Make the page.

    Parameters
    ----------
    assessment : Assessment
    kicker : str
        What kind of page it is, above the title.
    lead : str
        What the first table shows.

    Returns
    -------
    str
        HTML. The same input gives the same text.
    """
    data_sets = assessment.data_sets
    templates = environment("wbc_batch.evaluation")
    return templates.get_template("evaluation.html.j2").render(
        assessment=assessment,
        kicker=kicker,
        lead=lead,
        classes=CLASSES,
        coverages=COVERAGES,
        coverage=_drawing(partial(pictures.coverage, data_sets), "coverage"),
        sections=[
            {
                "id": f"set-{number}",
                "name": name,
                "role": assessment.roles[name],
                "figures": judged.evaluation,
                "reliability": _drawing(
                    partial(pictures.reliability, {name: judged.evaluation}), f"set{number}"
                ),
                "wrong": _count_wrong(judged),
                "mistakes": _mistakes(judged),
            }
            for number, (name, judged) in enumerate(assessment.known.items(), 1)
        ],
        unknown_mistakes={name: _accepted(judged) for name, judged in assessment.unknown.items()},
    )


def _drawing(draw: Callable[[], Any], name: str) -> Markup:
    return Markup(inline_svg(to_svg(draw), name))


def _count_wrong(judged: Judged) -> int:
    confusion = np.array(judged.evaluation.confusion)
    return int(confusion.sum() - confusion.trace())


def _mistakes(judged: Judged) -> list[Mistake]:
    """Return the most confident of the wrong guesses."""
    true = np.asarray(CLASSES)[judged.cells.labels]
    wrong = true != np.asarray(CLASSES)[judged.predictions.probabilities.argmax(axis=1)]
    return _worst(wrong, true, judged.cells.members, judged.cells.crops, judged.predictions)


def _accepted(judged: JudgedUnknown) -> list[Mistake]:
    """Return the unknown cells that were taken for known ones, the most confident ones."""
    cells = judged.cells
    taken = judged.predictions.label != UNIDENTIFIED
    return _worst(taken, np.array(cells.kinds), cells.members, cells.crops, judged.predictions)


def _worst(
    wrong: NDArray[np.bool_],
    true: NDArray[np.str_],
    members: tuple[str, ...],
    crops: NDArray[np.uint8],
    predictions: Predictions,
) -> list[Mistake]:
    places = np.flatnonzero(wrong)
    order = places[np.argsort(-predictions.confidence[places], kind="stable")]
    return [
        Mistake(
            name=PurePosixPath(members[k]).name,
            member=members[k],
            true=str(true[k]),
            predicted=str(predictions.predicted[k]),
            confidence=float(predictions.confidence[k]),
            unidentified=bool(predictions.label[k] == UNIDENTIFIED),
            picture=picture_uri(crops[k]),
        )
        for k in order[:MAX_MISTAKES].tolist()
    ]
