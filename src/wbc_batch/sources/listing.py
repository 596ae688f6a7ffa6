"""The door to all cells: what is listed, and in which order."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wbc_batch.errors import InputError
from wbc_batch.paths import is_file
from wbc_batch.sources.archives import list_tar, list_zip
from wbc_batch.sources.arrays import list_array
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.folders import list_folder
from wbc_batch.sources.groups import Grouping, parent_folder, parse_grouping
from wbc_batch.sources.inputs import AnyInput, Input, check_inputs, name_inputs
from wbc_batch.sources.kinds import Kind, kind_of
from wbc_batch.sources.stacks import is_one_crop, list_stack
from wbc_batch.sources.stdin import PathList
from wbc_batch.sources.tables import list_table

__all__ = ["list_cells"]


def list_cells(inputs: Sequence[AnyInput], group_by: str | None = None) -> Iterator[Cell]:
    r"""List every cell of all inputs, in a fixed order, decoding nothing.

    Every file of a folder or an archive is listed, whatever its name says: a file that turns out not to
    be an image becomes a row that says so, and nothing is passed over in silence. The exceptions are
    hidden files and folders (their name begins with a dot) and the litter of file managers.

    Parameters
    ----------
    inputs : sequence of str, Path or PathList
        Folders, image files, ZIP and TAR archives, TIFF stacks, zarr arrays (also by URL), tables of paths or
        boxes (CSV, Parquet), and the paths that came on standard input; read in the given order.
    group_by : str, optional
        What the group of a cell is named after: ``parent``, the folder it lies in; ``source``, the input;
        a regular expression with a group in parentheses, such as ``(patient-\d+)``, that is searched in
        the cell's path; or a column of a table. Default: a table's column ``group``, if there is one, else
        ``parent``.

    Yields
    ------
    Cell

    Raises
    ------
    InputError
        Before the first cell: if an input is missing, was named twice, or lies inside another one. Later:
        if an input cannot be listed or holds no cell, or `group_by` finds no group.
    """
    grouping = parse_grouping(group_by)
    check_inputs(inputs)
    single = [item for item in inputs if not isinstance(item, PathList)]
    named = iter(name_inputs(single, [_kind(item) for item in single], alone=len(inputs) == 1))
    for item in inputs:
        if isinstance(item, PathList):
            yield from _piped(item, grouping)
        else:
            yield from _list(next(named), grouping)


_LISTERS: dict[Kind, Callable[[Input], Iterator[Cell]]] = {
    Kind.FOLDER: list_folder,
    Kind.ZIP: list_zip,
    Kind.TAR: list_tar,
    Kind.TIFF: list_stack,
    Kind.FILE: lambda item: iter([Cell(item.source, "", None, item.name)]),
}


def _kind(item: str | Path) -> Kind:
    kind = kind_of(item)
    if kind is Kind.TABLE and not is_file(item):
        return Kind.FILE  # its row will say why
    return Kind.FILE if kind is Kind.TIFF and is_one_crop(Path(item)) else kind


def _list(item: Input, grouping: Grouping) -> Iterator[Cell]:
    if item.kind is Kind.TABLE:
        return list_table(item, grouping)
    if item.kind is Kind.ZARR:
        return map(grouping.apply, list_array(item, grouping))
    if grouping.column:
        raise InputError(
            f"--group-by {grouping.column}: {item.given} is not a table and has no columns; use "
            "parent, source, or a regular expression with a group in parentheses, such as "
            "'(patient-[0-9]+)'"
        )
    return map(grouping.apply, _LISTERS[item.kind](item))


def _piped(paths: PathList, grouping: Grouping) -> Iterator[Cell]:
    """Cells of the paths that came on standard input; one that is missing is a row that says so."""
    empty = True
    for path in paths:
        empty = False
        kind = _kind(path)
        source = path if kind is Kind.ZARR else Path(path).as_posix()
        name = parent_folder(source, "") if kind is Kind.FILE else source
        yield from _list(Input(path, kind, name, alone=False), grouping)
    if empty:
        raise InputError("no paths came on standard input; pipe them in, one per line")
