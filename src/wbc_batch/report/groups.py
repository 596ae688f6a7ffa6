"""Which group a cell is counted with, and what the names of its folders say that it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wbc_batch.errors import InputError
from wbc_batch.names import composed
from wbc_batch.paths import is_file
from wbc_batch.report.lists import name_rows, read_list, refuse_twice
from wbc_batch.schema import CLASSES
from wbc_batch.sources.groups import PathPattern

__all__ = ["AS_LISTED", "Regrouping", "label_in", "read_grouping"]
#: From the source, the member and the listed group of a cell to the group that it is counted with.
Rule = Callable[[str, str, str], str]


@dataclass(frozen=True)
class Regrouping:
    """How the report groups cells.

    Attributes
    ----------
    name : str
        As the user named it.
    rule : callable
        Takes `source`, `member` and `group` of a cell, gives its group in the report.
    """

    name: str
    rule: Rule


def label_in(group: str) -> tuple[str | None, str]:
    """Divide a group into the class that its innermost class folder names, and what is left of it.

    ``slide-1/Monocyte`` is the class monocyte in the group ``slide-1``: cells were sorted into folders of
    their classes, by a person or by an analyser.

    Parameters
    ----------
    group : str
        Folders, with forward slashes.

    Returns
    -------
    label : str or None
        None where no folder is called like a class, upper and lower case alike.
    group : str
        Without that folder.
    """
    folders = group.split("/")
    for place in reversed(range(len(folders))):
        if (label := folders[place].casefold()) in CLASSES:
            return label, "/".join(folders[:place] + folders[place + 1 :])
    return None, group


def _as_listed(source: str, _member: str, group: str) -> str:
    label, rest = label_in(group)
    return rest or PurePosixPath(source).name if label else group


#: The folders that cells were listed in; a folder of a class belongs to the one above it.
AS_LISTED = Regrouping("as listed", _as_listed)


def read_grouping(groups: str | None) -> Regrouping:
    r"""Understand ``--groups``.

    Parameters
    ----------
    groups : str or None
        None for `AS_LISTED`; ``source`` for one group per input; a regular expression with a group in
        it, such as ``(patient-\d+)``, that is looked for in the path of a cell; or a CSV file with the
        columns ``group`` (as listed) and ``name`` (in the report).

    Returns
    -------
    Regrouping

    Raises
    ------
    InputError
        If it is none of these, or the file cannot be used.
    """
    if groups is None:
        return AS_LISTED
    if groups == "source":
        return Regrouping(groups, lambda source, _member, _group: source)
    if "(" in groups and not is_file(groups):
        return Regrouping(groups, _by_pattern(groups))
    if not groups.casefold().endswith(".csv"):
        raise InputError(
            f"--groups {groups!r} is neither 'source', nor a CSV file with the columns group and name, nor a "
            r"regular expression with a group in parentheses, such as '(patient-\d+)'"
        )
    return Regrouping(groups, _by_list(Path(groups)))


def _by_pattern(text: str) -> Rule:
    pattern = PathPattern.of("--groups", text)
    return lambda source, member, _group: pattern.find(source, member)


def _by_list(path: Path) -> Rule:
    table = read_list(path, ("group", "name"))
    refuse_twice(path, table["group"], "groups")
    unnamed = table[table["name"] == ""]
    if len(unnamed):
        raise InputError(
            f"{path} has groups without a name: {name_rows(unnamed.index, unnamed['group'])}; name them"
        )
    names = dict(zip(table["group"], table["name"], strict=True))
    names = {composed(group): name for group, name in names.items()} | names

    def rule(source: str, member: str, group: str) -> str:
        for listed in (group, _as_listed(source, member, group)):
            for spelled in (listed, composed(listed)):
                if spelled in names:
                    return names[spelled]
        raise InputError(f"{path} has no row for the group {group!r}; add one")

    return rule
