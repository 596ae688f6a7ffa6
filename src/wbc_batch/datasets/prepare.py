"""Prepare a data set: list the images, hash them, split them, write the manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wbc_batch.datasets.class_folders import (
    OUT_OF_CLASS,
    LabelledFile,
    list_class_folders,
    name_groups,
)
from wbc_batch.datasets.manifest import hash_files, write_manifest
from wbc_batch.datasets.published import CountDifference, compare_counts, list_pbc, list_raabin
from wbc_batch.datasets.splits import (
    ASIDE,
    Shares,
    SplitCell,
    set_copies_aside,
    split_by_class,
    split_by_group,
    split_published,
)
from wbc_batch.errors import InputError
from wbc_batch.files import refuse_existing
from wbc_batch.paths import resolved
from wbc_batch.progress import Progress, silent
from wbc_batch.schema import CLASSES

__all__ = ["PreparedDataset", "prepare_dataset", "read_label_names"]

_PUBLISHED_RULE = (
    "Training: Raabin Train and 80 % of PBC's five classes, rounded down in each. Validation and test: half "
    "each of Raabin Test-A and of the rest of PBC, class by class, the odd cell to the smaller one."
)


@dataclass(frozen=True)
class PreparedDataset:
    """What was prepared.

    Attributes
    ----------
    path : Path
        The folder of the data set.
    cells : tuple of SplitCell
    differences : tuple of CountDifference
        Where published data sets do not have their published size.
    record : dict
        What ``dataset.json`` holds, see `wbc_batch.datasets.manifest.write_manifest`.
    """

    path: Path
    cells: tuple[SplitCell, ...]
    differences: tuple[CountDifference, ...]
    record: dict[str, Any]

    def counts(self) -> Counter[tuple[str, str, str]]:
        """Images by split, source and label."""
        return Counter((c.split, c.file.source, c.file.label) for c in self.cells)

    def aside(self) -> list[SplitCell]:
        """Images that are in no split that is read."""
        return [cell for cell in self.cells if cell.split in ASIDE]


def prepare_dataset(
    output: Path,
    *,
    pbc: Path | None = None,
    raabin: Path | None = None,
    folders: Mapping[str, Path] | None = None,
    labels: Mapping[str, str] | None = None,
    group_by: str | None = None,
    shares: Shares | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> PreparedDataset:
    """Prepare a data set of published and own cells.

    Parameters
    ----------
    output : Path
        New or empty folder for ``manifest.csv`` and ``dataset.json``.
    pbc, raabin : Path, optional
        Folders of the published data sets, see `wbc_batch.datasets.published`; split as
        `wbc_batch.datasets.splits.split_published` says.
    folders : mapping of str to Path, optional
        Own data sets by name, with one folder per class.
    labels : mapping of str to str, optional
        What the folders' own class names mean, see `wbc_batch.datasets.class_folders.list_class_folders`.
    group_by : str, optional
        Pattern that finds patient or slide in a path, see `wbc_batch.datasets.class_folders.name_groups`.
    shares : Shares, optional
        Of validation and test in `folders`. Default: a tenth each.
    seed : int
        The same seed and images give the same split.
    progress : callable
        Called with the number of files hashed and of all.

    Returns
    -------
    PreparedDataset

    Raises
    ------
    InputError
        If an input cannot be used.
    RunError
        If `output` holds something already, or cannot be written.
    """
    refuse_existing(output)
    folders, labels = dict(folders or {}), dict(labels or {})
    shares = shares or Shares.of(0.1, 0.1)
    _check(pbc, raabin, folders, group_by)
    _refuse_inside(output, folders)
    published = [*(list_pbc(pbc) if pbc else ()), *(list_raabin(raabin) if raabin else ())]
    files = [*published, *_list_own(folders, labels, group_by)]
    hashes = hash_files([file.path for file in files], progress)
    cells = [SplitCell(file, digest) for file, digest in zip(files, hashes, strict=True)]
    split = split_published(cells[: len(published)], seed)
    split += _split_own(cells[len(published) :], shares, bool(group_by), seed)
    settled = tuple(set_copies_aside(split))
    differences = tuple(compare_counts(published))
    facts = {
        "made_by": f"wbc-batch {version('wbc-napari')}",
        "seed": seed,
        "rule": _rule(bool(published), folders, shares, group_by),
        "labels": labels,
        "differs_from_published": [str(difference) for difference in differences],
    }
    return PreparedDataset(output, settled, differences, write_manifest(output, settled, facts))


def read_label_names(arguments: Sequence[str]) -> dict[str, str]:
    """Read ``OWN=CLASS`` arguments.

    Returns
    -------
    dict of str to str
        Class, or `OUT_OF_CLASS`, by the folders' own name.

    Raises
    ------
    InputError
        If an argument is none, names no class, or two say different things.
    """
    labels: dict[str, str] = {}
    for argument in arguments:
        own, equals, label = argument.partition("=")
        if not (own and equals):
            raise InputError(f"--label {argument!r} is not of the form FOLDER=CLASS")
        if label not in (*CLASSES, OUT_OF_CLASS):
            raise InputError(
                f"--label {argument!r} does not name a class; the classes are {', '.join(CLASSES)}, "
                f"and {OUT_OF_CLASS} for any other cell"
            )
        if label == OUT_OF_CLASS and own.casefold() in CLASSES:
            raise InputError(
                f"--label {argument!r} marks a class as {OUT_OF_CLASS}; rename the folder to something "
                "other than a class"
            )
        if labels.setdefault(own, label) != label:
            raise InputError(f"--label maps {own!r} to {labels[own]} and to {label}; keep one")
    return labels


def _check(
    pbc: Path | None, raabin: Path | None, folders: Mapping[str, Path], group_by: str | None
) -> None:
    if not (pbc or raabin or folders):
        raise InputError("no cells were given; give --pbc, --raabin, or folders of your own")
    if group_by and not folders:
        raise InputError(
            "--group-by needs folders of your own: PBC and Raabin do not say which patient a cell is from"
        )
    for name, place in (("pbc", pbc), ("raabin", raabin)):
        if place and name in folders:
            raise InputError(
                f"{folders[name]} is called {name!r} like the published data set; "
                "rename it with NAME=FOLDER"
            )
    places = {resolved(place): place for place in (pbc, raabin, *folders.values()) if place}
    for real, place in places.items():
        inside = next((p for p in real.parents if p in places), None)
        if inside:
            raise InputError(
                f"{place} lies inside {places[inside]}, which was given, too; give each cell only once"
            )
    if len(places) < len(folders) + bool(pbc) + bool(raabin):
        raise InputError("a folder was given twice; give each cell only once")


def _refuse_inside(output: Path, folders: Mapping[str, Path]) -> None:
    """Refuse to write among the cells, where the manifest would be one of them."""
    above = (resolved(output), *resolved(output).parents)
    for place in folders.values():
        if resolved(place) in above:
            raise InputError(
                f"{output} lies inside {place}, whose files are read as cells; "
                "choose a folder outside it with -o"
            )


def _list_own(
    folders: Mapping[str, Path], labels: Mapping[str, str], group_by: str | None
) -> list[LabelledFile]:
    files = [f for name, place in folders.items() for f in list_class_folders(name, place, labels)]
    return name_groups(files, group_by) if group_by else files


def _split_own(
    cells: Sequence[SplitCell], shares: Shares, grouped: bool, seed: int
) -> list[SplitCell]:
    if grouped:
        return split_by_group(cells, shares, seed)
    by_source: dict[str, list[SplitCell]] = {}
    for cell in cells:
        by_source.setdefault(cell.file.source, []).append(cell)
    return [c for some in by_source.values() for c in split_by_class(some, shares, seed)]


def _rule(
    published: bool, folders: Mapping[str, Path], shares: Shares, group_by: str | None
) -> list[str]:
    """Say in words how the split was made."""
    rules = [_PUBLISHED_RULE] if published else []
    if folders:
        unit = f"whole patients or slides, named by {group_by!r}" if group_by else "class by class"
        rules.append(
            f"{', '.join(folders)}: {float(shares.validation):g} for validation, "
            f"{float(shares.test):g} for test, {unit}."
        )
    return rules
