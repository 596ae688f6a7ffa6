"""What a report keeps of cells that stream by: counts and a few cells to show, never all rows."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.report.agreement import Agreement, count_pairs, count_pairs_in
from wbc_batch.report.differential import Tally
from wbc_batch.report.gallery import Picks
from wbc_batch.report.review import after_review
from wbc_batch.schema import CLASSES, GIVEN_LABEL_COLUMN, STATUS_ERROR, STATUS_OK

__all__ = ["Collected", "Known"]

#: Cells with errors that the page lists at most.
MAX_ERRORS = 200


def _no_pairs() -> NDArray[np.int64]:
    return count_pairs([], [])


@dataclass
class Known:
    """Cells whose class was known beforehand, by that class.

    Attributes
    ----------
    labels : ndarray of int64, shape (6, 6)
        And by the model's label, see `wbc_batch.report.Agreement`.
    guesses : ndarray of int64, shape (6, 6)
        And by the model's best guess, unidentified cells too.
    """

    labels: NDArray[np.int64] = field(default_factory=_no_pairs)
    guesses: NDArray[np.int64] = field(default_factory=_no_pairs)

    def __add__(self, other: "Known") -> "Known":
        return Known(self.labels + other.labels, self.guesses + other.guesses)


@dataclass
class Collected:
    """All that the pages and tables of a run are made of.

    Attributes
    ----------
    tally : Tally
        By the model's labels.
    reviewed : Tally
        By the labels after the review; empty without one.
    picks : Picks
        The cells to show.
    errors : DataFrame
        The first `MAX_ERRORS` cells that could not be classified.
    known : dict of str to Known
        By group; empty where no class was known beforehand.
    review_pairs : ndarray of int64, shape (6, 6)
        Reviewed cells by the model's label and the reviewer's.
    reviewed_cells : int
        All of them, those too that the model could not classify, which have no pair of labels.
    reviewers : set of str
    """

    tally: Tally = field(default_factory=Tally)
    reviewed: Tally = field(default_factory=Tally)
    picks: Picks = field(default_factory=Picks)
    errors: pd.DataFrame = field(default_factory=pd.DataFrame)
    known: dict[str, Known] = field(default_factory=dict)
    review_pairs: NDArray[np.int64] = field(default_factory=_no_pairs)
    reviewed_cells: int = 0
    reviewers: set[str] = field(default_factory=set)

    def add(self, cells: pd.DataFrame) -> None:
        """Take some more cells in."""
        self.tally.add(cells)
        self.picks.add(cells)
        if len(self.errors) < MAX_ERRORS:
            more = cells[cells["status"] == STATUS_ERROR]
            self.errors = pd.concat([self.errors, more.head(MAX_ERRORS - len(self.errors))])
        if GIVEN_LABEL_COLUMN in cells:
            self._add_known(cells[cells["status"] == STATUS_OK])
        if "reviewed_label" in cells:
            self.reviewed.add(after_review(cells))
            seen = cells[cells["reviewed_label"].notna()]
            self.review_pairs = self.review_pairs + count_pairs(
                seen["label"], seen["reviewed_label"]
            )
            self.reviewed_cells += len(seen)
            self.reviewers |= set(seen["reviewed_by"])

    def review_agreement(self) -> Agreement:
        """Model and reviewer, over the reviewed cells."""
        return Agreement(self.review_pairs)

    def all_known(self) -> Known:
        """Add up the groups."""
        return sum(self.known.values(), Known())

    def _add_known(self, cells: pd.DataFrame) -> None:
        truth = cells[GIVEN_LABEL_COLUMN].str.casefold()
        of_class = truth.isin(CLASSES)
        truth, cells = truth[of_class], cells[of_class]
        places, groups = pd.factorize(cells["group"])
        labels = count_pairs_in(places, len(groups), truth, cells["label"])
        guesses = count_pairs_in(places, len(groups), truth, cells["predicted"])
        for group, of_labels, of_guesses in zip(groups, labels, guesses, strict=True):
            known = self.known.get(str(group), Known())
            self.known[str(group)] = known + Known(of_labels, of_guesses)
