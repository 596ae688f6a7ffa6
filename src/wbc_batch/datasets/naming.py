"""Which data sets are meant: the arguments ``[NAME=]DATASET[:SPLIT]`` of the commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wbc_batch.datasets.manifest import ManifestPart, is_manifest, read_manifest
from wbc_batch.datasets.splits import TRAIN, VALIDATION
from wbc_batch.errors import InputError
from wbc_batch.paths import exists, resolved

__all__ = ["Datasets", "class_folders", "named_folders", "named_validation"]

#: Data sets by name: folders of classes, and parts of prepared data sets.
Datasets = Mapping[str, Path | ManifestPart]


def named_folders(arguments: Sequence[str], split: str) -> dict[str, Path | ManifestPart]:
    """Read ``[NAME=]DATASET[:SPLIT]`` arguments.

    A folder of classes without a name is called by its own. Of a data set that ``wbc-batch dataset prepare``
    made, each source becomes a data set, so that figures are apart: ``pbc`` for training, ``pbc-test`` and
    so on for other splits; with a name given, that name, before theirs where there are several.

    Parameters
    ----------
    arguments : sequence of str
    split : str
        Of prepared data sets where the argument names none.

    Raises
    ------
    InputError
        If two data sets have the same name, a split is missing, or an image of it is missing.
    """
    folders: dict[str, Path | ManifestPart] = {}
    for argument in arguments:
        for name, dataset in _resolve(*_divide(argument), split).items():
            if name in folders:
                raise InputError(
                    f"two data sets are called {name!r}: {folders[name]} and {dataset}; "
                    "rename one of them with NAME=FOLDER"
                )
            folders[name] = dataset
    return folders


def class_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """Read ``[NAME=]FOLDER`` arguments, where no prepared data set will do.

    Raises
    ------
    InputError
        If two folders have the same name, or one is a prepared data set.
    """
    folders: dict[str, Path] = {}
    for name, dataset in named_folders(arguments, TRAIN).items():
        if isinstance(dataset, ManifestPart):
            raise InputError(
                f"{dataset.manifest} is a prepared data set; give the folders that contain its images"
            )
        folders[name] = dataset
    return folders


def named_validation(
    validation: Sequence[str], training: Sequence[str]
) -> dict[str, Path | ManifestPart]:
    """Read the arguments for validation; without any, the validation splits of the training data sets.

    Returns
    -------
    dict of str to Path or ManifestPart
        Empty if none has such a split: a part of the training cells has to be held out then.

    Raises
    ------
    InputError
        See `named_folders`.
    """
    if validation:
        return named_folders(validation, VALIDATION)
    # Without the split they are trained on.
    places = [
        f"{name}={path}"
        for name, path, _ in map(_divide, training)
        if is_manifest(path) and read_manifest(path).sources(VALIDATION)
    ]
    return named_folders(places, VALIDATION)


def _divide(argument: str) -> tuple[str, Path, str | None]:
    """Divide ``[NAME=]DATASET[:SPLIT]``; what divides nothing that is there belongs to a folder's name."""
    name, equals, place = argument.partition("=")
    if equals and not exists(_divide_split(place)[0]) and exists(_divide_split(argument)[0]):
        equals = ""
    return (name, *_divide_split(place)) if equals else ("", *_divide_split(argument))


def _divide_split(place: str) -> tuple[Path, str | None]:
    left, colon, split = place.rpartition(":")
    if colon and left and not exists(place) and exists(left):
        return Path(left), split
    return Path(place), None


def _resolve(
    name: str, path: Path, named: str | None, split: str
) -> dict[str, Path | ManifestPart]:
    """Find the data sets that one argument means."""
    if not is_manifest(path):
        if named:
            raise InputError(
                f"{path} is not a prepared data set, so it has no split {named!r}; "
                "make one with wbc-batch dataset prepare"
            )
        return {name or resolved(path).name: path}
    split = named or split
    manifest = read_manifest(path)
    manifest.select(split)
    sources = manifest.sources(split)
    parts = [ManifestPart(path.absolute(), split, source) for source in sources]
    return {_name(name, part, len(parts) > 1): part for part in parts}


def _name(given: str, part: ManifestPart, several: bool) -> str:
    """Name a part so that nobody takes the test cells of a source for those that were trained on."""
    source = part.source or ""
    if given:
        return f"{given}-{source}" if several else given
    return source if part.split == TRAIN else f"{source}-{part.split}"
