"""Images that lie in folders named after their classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from wbc_batch.errors import InputError
from wbc_batch.paths import is_file, resolved
from wbc_batch.schema import CLASSES
from wbc_batch.sources import list_cells
from wbc_batch.sources.folders import empty_folders
from wbc_batch.sources.groups import PathPattern
from wbc_batch.sources.kinds import Kind, kind_of

__all__ = ["OUT_OF_CLASS", "LabelledFile", "list_class_folders", "name_groups"]

#: What a folder's name is mapped to whose cells are of none of the five classes.
OUT_OF_CLASS = "out_of_class"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image whose class is known.

    Attributes
    ----------
    source : str
        Name of the data set.
    root : Path
        Folder of the data set.
    member : str
        Path inside `root`, with forward slashes.
    label : str
        One of `wbc_batch.schema.CLASSES`, or what else the cell is.
    part : str
        Part of the data set as its authors divided it; empty if they did not.
    group : str
        Patient or slide; empty if not known.
    """

    source: str
    root: Path
    member: str
    label: str
    part: str = ""
    group: str = ""

    @property
    def path(self) -> Path:
        """Where the image lies."""
        return self.root / self.member


def list_class_folders(
    source: str, folder: Path, labels: Mapping[str, str] | None = None
) -> list[LabelledFile]:
    """List the images below a folder, each labelled by the innermost folder that names a class.

    Both ``neutrophil/patient-1/a.png`` and ``patient-1/Neutrophil/a.png`` are neutrophils; upper and lower
    case are alike.

    Parameters
    ----------
    source : str
        What to call the data set.
    folder : Path
    labels : mapping of str to str, optional
        Other folder names, by what they mean: one of the five classes, or `OUT_OF_CLASS`, which makes the
        folder's own name the label.

    Returns
    -------
    list of LabelledFile
        In the order of their paths.

    Raises
    ------
    InputError
        If the folder is missing, cannot be listed or is empty, a folder in it is empty, or a file lies in
        no folder that names a class.
    """
    meanings = {name.casefold(): name for name in CLASSES}
    for own, meaning in (labels or {}).items():
        meanings[own.casefold()] = own if meaning == OUT_OF_CLASS else meaning
    files = [
        LabelledFile(source, folder, cell.member, _label(folder, cell.member, meanings))
        for cell in list_cells([_existing(folder)])
    ]
    _refuse_empty_folders(folder)
    return files


def name_groups(files: list[LabelledFile], pattern: str) -> list[LabelledFile]:
    r"""Read the patient or slide of each image from its path.

    Parameters
    ----------
    files : list of LabelledFile
    pattern : str
        Regular expression that is searched in ``NAME/path/inside/the/folder.png``, where ``NAME`` is that
        of the data set; its first group names the patient or slide, such as ``/(patient-\d+)/``.

    Returns
    -------
    list of LabelledFile

    Raises
    ------
    InputError
        If the pattern is none, has no group, or is not found in a path.
    """
    finder = PathPattern.of("--group-by", pattern)
    return [replace(file, group=finder.find(file.source, file.member)) for file in files]


def _existing(folder: Path) -> Path:
    if is_file(folder):
        raise InputError(f"{folder} is a file; give a folder that holds one folder per class")
    if kind_of(folder) is Kind.ZARR:
        raise InputError(
            f"{folder} is a zarr store; give a folder that holds one folder per class, with a file for each "
            "cell"
        )
    return folder


def _label(folder: Path, member: str, meanings: Mapping[str, str]) -> str:
    above = PurePosixPath(member).parts[:-1]
    for name in reversed(above):
        if name.casefold() in meanings:
            return meanings[name.casefold()]
    # The folder itself may be that of a class: data/neutrophil.
    own = above[-1] if above else resolved(folder).name
    if not above and own.casefold() in meanings:
        return meanings[own.casefold()]
    raise InputError(
        f"{folder / member} lies in the folder {own!r}, which is not a class; "
        f"the classes are {', '.join(CLASSES)}; other names can be mapped to them by "
        "wbc-batch dataset prepare --label NAME=CLASS"
    )


def _refuse_empty_folders(folder: Path) -> None:
    for place in empty_folders(folder):
        raise InputError(f"{place} is an empty folder; put its cells there, or remove it")
