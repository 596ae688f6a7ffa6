"""Which cells to train on, to validate on and to test on.

Nothing here is drawn at random twice: the order of the cells follows from the seed and the content of their
files, so the same images give the same split under any names, in any folder and on any machine.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from wbc_batch.datasets.class_folders import OUT_OF_CLASS, LabelledFile
from wbc_batch.errors import InputError
from wbc_batch.names import name_bytes
from wbc_batch.schema import CLASSES

__all__ = [
    "ASIDE",
    "SHIFTED",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Shares",
    "SplitCell",
    "set_copies_aside",
    "split_by_class",
    "split_by_group",
    "split_published",
]

TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: Split of known classes from another microscope or camera.
SHIFTED = "shifted"
#: Splits that are never read: further copies of a cell of another split, and one picture with two labels.
ASIDE = DUPLICATE, CONFLICTING = "duplicate", "conflicting"

# Of copies in several splits the one that comes first here stays: test sets are kept whole.
_PRECEDENCE = (TEST, SHIFTED, OUT_OF_CLASS, VALIDATION, TRAIN)


@dataclass(frozen=True)
class Shares:
    """What part of the cells goes to validation and to test; the rest is for training.

    Attributes
    ----------
    validation, test : Fraction
    """

    validation: Fraction
    test: Fraction

    @classmethod
    def of(cls, validation: float | str, test: float | str) -> "Shares":
        """Make shares from decimal numbers, exactly.

        Raises
        ------
        InputError
            If a share is negative or no number, or nothing is left for training.
        """
        try:
            shares = cls(Fraction(str(validation)), Fraction(str(test)))
        except ValueError as error:  # nan, inf
            raise InputError(
                f"shares of {validation} for validation and {test} for test are not numbers; "
                "give two numbers of at least 0 whose sum is below 1"
            ) from error
        if min(shares.validation, shares.test) < 0 or shares.held >= 1:
            raise InputError(
                f"shares of {validation} for validation and {test} for test cannot be used; "
                "give two numbers of at least 0 whose sum is below 1"
            )
        return shares

    @property
    def held(self) -> Fraction:
        """Share that is not for training."""
        return self.validation + self.test

    def by_split(self) -> dict[str, Fraction]:
        """Share of each split that is not empty by intent."""
        shares = {TRAIN: 1 - self.held, VALIDATION: self.validation, TEST: self.test}
        return {split: share for split, share in shares.items() if share}


@dataclass(frozen=True, slots=True)
class SplitCell:
    """A labelled image, the hash of its content and the split that it is in.

    Attributes
    ----------
    file : LabelledFile
    sha256 : str
    split : str
        Empty as long as it is not decided.
    """

    file: LabelledFile
    sha256: str
    split: str = ""


def split_published(cells: Sequence[SplitCell], seed: int) -> list[SplitCell]:
    """Split PBC and Raabin-WBC as the original project did.

    Training cells are Raabin's Train and 80 % of PBC's five classes (rounded down in each class); validation
    and test share Raabin's Test-A and the rest of PBC, class by class, the odd cell to the one that has
    fewer so far. Complete data sets give 18,412 / 3,200 / 3,200 cells. Raabin's Test-B is `SHIFTED`, what
    else PBC holds is `OUT_OF_CLASS`.
    """
    test_a = [cell for cell in cells if cell.file.part == "TestA"]
    pbc = [cell for cell in cells if cell.file.source == "pbc"]
    known = [cell for cell in pbc if cell.file.label in CLASSES]
    parts = [(test_a, Fraction(0)), (known, Fraction(8, 10))]
    return [
        *(replace(cell, split=TRAIN) for cell in cells if cell.file.part == "Train"),
        *_share_out(parts, Fraction(1, 2), seed),
        *(replace(cell, split=SHIFTED) for cell in cells if cell.file.part == "TestB"),
        *(replace(cell, split=OUT_OF_CLASS) for cell in pbc if cell.file.label not in CLASSES),
    ]


def split_by_class(cells: Sequence[SplitCell], shares: Shares, seed: int) -> list[SplitCell]:
    """Split class by class; cells of no class are `OUT_OF_CLASS`."""
    known, other = _known(cells)
    if not shares.held:
        return [*(replace(cell, split=TRAIN) for cell in known), *other]
    return [*_share_out([(known, 1 - shares.held)], shares.validation / shares.held, seed), *other]


def split_by_group(cells: Sequence[SplitCell], shares: Shares, seed: int) -> list[SplitCell]:
    """Split so that all cells of a patient or slide are in one split.

    Groups are given out from the largest to the smallest, each to the split where it brings the numbers
    of all classes closest to the wanted ones, by the sum of squared differences over the wanted numbers
    (Pearson's chi-squared). The idea is that of scikit-learn's ``StratifiedGroupKFold``, for splits of
    unequal size.

    Raises
    ------
    InputError
        If there are fewer groups than splits.
    """
    known, other = _known(cells)
    groups: defaultdict[tuple[str, str], list[SplitCell]] = defaultdict(list)
    for cell in known:
        groups[cell.file.source, cell.file.group].append(cell)
    wanted = shares.by_split()
    if len(groups) < len(wanted):
        raise InputError(
            f"--group-by finds {len(groups)} patients or slides, too few for {len(wanted)} splits "
            f"({', '.join(wanted)}); give more cells, or set --validation or --test to 0"
        )
    order = sorted(groups, key=lambda key: (-len(groups[key]), _rank(seed, "\0".join(key))))
    counts = np.array([_class_counts(groups[key]) for key in order], float)
    chosen = _give_out(counts, np.array([float(share) for share in wanted.values()]))
    names = list(wanted)
    split_of = {key: names[k] for key, k in zip(order, chosen, strict=True)}
    split = [replace(c, split=split_of[c.file.source, c.file.group]) for c in known]
    return [*split, *other]


def set_copies_aside(cells: Sequence[SplitCell]) -> list[SplitCell]:
    """See to it that no two splits share an image.

    Of files with the same content that are in several splits, those in the split farthest from training
    stay and the others become ``duplicate``. If such files have different labels, all become
    ``conflicting``.
    """
    labels: defaultdict[str, set[str]] = defaultdict(set)
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for cell in cells:
        labels[cell.sha256].add(cell.file.label)
        splits[cell.sha256].add(cell.split)

    def settle(cell: SplitCell) -> SplitCell:
        if len(labels[cell.sha256]) > 1:
            return replace(cell, split=CONFLICTING)
        first = min(splits[cell.sha256], key=_PRECEDENCE.index)
        return cell if cell.split == first else replace(cell, split=DUPLICATE)

    return [settle(cell) for cell in cells]


def _known(cells: Sequence[SplitCell]) -> tuple[list[SplitCell], list[SplitCell]]:
    known = [cell for cell in cells if cell.file.label in CLASSES]
    other = [c for c in cells if c.file.label not in CLASSES]
    return known, [replace(cell, split=OUT_OF_CLASS) for cell in other]


def _share_out(
    parts: Sequence[tuple[Sequence[SplitCell], Fraction]], validation: Fraction, seed: int
) -> list[SplitCell]:
    """Split each part class by class.

    Parameters
    ----------
    parts : sequence of (cells, share)
        With the share of the cells that is for training.
    validation : Fraction
        Share of validation in what is not for training. What rounding leaves over in one class is made up
        for in the next, over all parts.
    seed : int
    """
    split: list[SplitCell] = []
    due, given = Fraction(0), 0
    for cells, training in parts:
        for label in CLASSES:
            ordered = _shuffled([cell for cell in cells if cell.file.label == label], seed)
            held = len(ordered) - _training_cells(len(ordered), training)
            due += held * validation
            some = int(due + Fraction(1, 2)) - given
            given += some
            names = [VALIDATION] * some + [TEST] * (held - some)
            names += [TRAIN] * (len(ordered) - held)
            split += [replace(c, split=name) for c, name in zip(ordered, names, strict=True)]
    return split


def _training_cells(count: int, share: Fraction) -> int:
    # A class of a few cells had better be trained on than not.
    return max(int(count * share), 1) if share and count else 0


def _shuffled(cells: Sequence[SplitCell], seed: int) -> list[SplitCell]:
    return sorted(cells, key=lambda cell: (_rank(seed, cell.sha256), cell.file.member))


def _rank(seed: int, text: str) -> str:
    return sha256(name_bytes(f"{seed}\0{text}")).hexdigest()


def _class_counts(cells: Sequence[SplitCell]) -> list[int]:
    found: Mapping[str, int] = Counter(cell.file.label for cell in cells)
    return [found[label] for label in CLASSES]


def _give_out(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> list[int]:
    """Give each group, a row of class counts, to a split; every split gets at least one."""
    wanted = np.outer(shares, counts.sum(axis=0))
    there = wanted > 0
    weight = np.divide(1.0, wanted, out=np.zeros_like(wanted), where=there)
    got = np.zeros_like(wanted)
    chosen: list[int] = []
    for n, row in enumerate(counts):
        change = (((got + row - wanted) ** 2 - (got - wanted) ** 2) * weight).sum(axis=1)
        empty = [k for k in range(len(shares)) if k not in chosen]
        if len(empty) == len(counts) - n:  # as many groups are left as splits have none
            change[[k for k in range(len(shares)) if k not in empty]] = np.inf
        best = int(change.argmin())
        chosen.append(best)
        got[best] += row
    return chosen
