r"""What cells are counted together: ``--group-by parent|source|REGEX|COLUMN``."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from wbc_batch.errors import InputError
from wbc_batch.names import composed
from wbc_batch.sources.cells import Cell, path_of

__all__ = ["Grouping", "PathPattern", "parent_folder", "parse_grouping"]


@dataclass(frozen=True)
class PathPattern:
    """A regular expression that finds the group of a cell in its path.

    Attributes
    ----------
    option : str
        Where the user gave it, such as ``--group-by``.
    pattern : re.Pattern
        Its first group names the group of a cell.
    """

    option: str
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, option: str, text: str) -> "PathPattern":
        """Compile what a user wrote.

        Raises
        ------
        InputError
            If it is no regular expression, or has no group.
        """
        try:
            pattern = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(
                f"{option} {text!r} is not a valid regular expression: {error}"
            ) from error
        if pattern.groups == 0:
            raise InputError(
                f"{option} {text!r} has no group; put the part that names the group in "
                "parentheses, such as '(patient-[0-9]+)'"
            )
        return cls(option, pattern)

    def find(self, source: str, member: str) -> str:
        """Name the group of a cell.

        Raises
        ------
        InputError
            If the pattern is not found in its path.
        """
        place = path_of(source, member)
        found = self.pattern.search(place) or re.search(
            composed(self.pattern.pattern), composed(place)
        )
        if not (found and found[1]):
            raise InputError(
                f"{self.option} {self.pattern.pattern!r} finds no group in {place!r}; "
                "change the pattern, or leave such cells out"
            )
        return found[1]


@dataclass(frozen=True)
class Grouping:
    """How cells are grouped.

    Attributes
    ----------
    rule : str
        As the user gave it; empty: the group that a table or a packed store names, else ``parent``.
    pattern : PathPattern or None
        If `rule` is a regular expression.
    """

    rule: str
    pattern: PathPattern | None

    @property
    def column(self) -> str | None:
        """The column of a table that names the group; None if `rule` is something else."""
        return None if self.pattern or self.rule in ("", "parent", "source") else self.rule

    def among(self, columns: Collection[str]) -> "Grouping":
        """Prefer the column of exactly this name, such as ``Patient (ID)``, to a regular expression."""
        return replace(self, pattern=None) if self.rule in columns else self

    def apply(self, cell: Cell) -> Cell:
        """Set the group of a listed cell, where it depends on nothing but the cell's identity.

        Raises
        ------
        InputError
            If the pattern is not found.
        """
        if self.rule == "source":
            return replace(cell, group=cell.source)
        if self.pattern is None:
            return cell
        return replace(cell, group=self.pattern.find(cell.source, cell.member))


def parse_grouping(rule: str | None) -> Grouping:
    r"""Understand ``--group-by``.

    Parameters
    ----------
    rule : str or None
        ``parent``, ``source``, a regular expression with a group such as ``(patient-\d+)``, or the
        name of a table's column.

    Returns
    -------
    Grouping

    Raises
    ------
    InputError
        If it looks like a regular expression and is none.
    """
    rule = (rule or "").strip()
    if "(" not in rule:
        return Grouping(rule, None)
    return Grouping(rule, PathPattern.of("--group-by", rule))


def parent_folder(source: str, member: str) -> str:
    """Name the folder that a cell lies in, as it is written; where that is the current one, its name."""
    folder = (member or source).rpartition("/")[0]
    if folder:
        return folder
    return Path(source).name if member else Path.cwd().name
