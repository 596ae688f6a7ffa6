"""The published data sets: how their folders are laid out, and how many images they hold."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_batch.datasets.class_folders import (
    OUT_OF_CLASS,
    LabelledFile,
    list_class_folders,
)
from wbc_batch.errors import InputError
from wbc_batch.paths import is_folder
from wbc_batch.schema import CLASSES

__all__ = [
    "PBC_COUNTS",
    "RAABIN_COUNTS",
    "CountDifference",
    "compare_counts",
    "list_pbc",
    "list_raabin",
]

#: Images of PBC (Acevedo et al. 2020, doi 10.1016/j.dib.2020.105474, table 2) per folder.
PBC_COUNTS = {
    "basophil": 1218,
    "eosinophil": 3117,
    "erythroblast": 1551,
    "ig": 2895,
    "lymphocyte": 1214,
    "monocyte": 1420,
    "neutrophil": 3329,
    "platelet": 2348,
}

#: Double-labelled crops of Raabin-WBC (Kouzehkanan et al. 2022, doi 10.1038/s41598-021-04426-x), per part
#: and class. Test-B, from another microscope and camera, does not hold every class and is not counted.
RAABIN_COUNTS = {
    "Train": dict(zip(CLASSES, (212, 744, 2427, 561, 6231), strict=True)),
    "TestA": dict(zip(CLASSES, (89, 322, 1034, 234, 2660), strict=True)),
}

_PBC_FOLDER = "PBC_dataset_normal_DIB"
_PBC_OTHER = {label: OUT_OF_CLASS for label in PBC_COUNTS if label not in CLASSES}
_RAABIN_PARTS = ("Train", "TestA", "TestB")


@dataclass(frozen=True)
class CountDifference:
    """A class of a published data set of which there are not as many images as published.

    Attributes
    ----------
    source, part, label : str
    found, published : int
    """

    source: str
    part: str
    label: str
    found: int
    published: int

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.source, self.part, self.label)))
        off = self.found - self.published
        return (
            f"{where}: {self.found:,} images, but {self.published:,} were published "
            f"({abs(off):,} {'too many' if off > 0 else 'missing'})"
        )


def list_pbc(folder: Path) -> list[LabelledFile]:
    """List PBC; cells of none of the five classes keep their folder's name as label.

    Parameters
    ----------
    folder : Path
        ``PBC_dataset_normal_DIB`` or the folder that holds it.

    Returns
    -------
    list of LabelledFile

    Raises
    ------
    InputError
        If a class has no folder or an empty one, or a folder is none of PBC's.
    """
    inside = folder / _PBC_FOLDER
    root = inside if is_folder(inside) else folder
    files = list_class_folders("pbc", root, _PBC_OTHER)
    _refuse_missing_classes("PBC", root, PBC_COUNTS, files)
    return files


def list_raabin(folder: Path) -> list[LabelledFile]:
    """List the double-labelled crops of Raabin-WBC; Test-B may be absent.

    Parameters
    ----------
    folder : Path
        Holds ``Train``, ``TestA`` and ``TestB`` (``Test-A`` and ``Test_A`` are read as well).

    Returns
    -------
    list of LabelledFile
        Their `part` is ``Train``, ``TestA`` or ``TestB``.

    Raises
    ------
    InputError
        If Train or Test-A is missing or lacks a class, or a folder is that of no class.
    """
    found = _raabin_parts(folder)
    files: list[LabelledFile] = []
    for part, place in found.items():
        listed = list_class_folders("raabin", place)
        if part in RAABIN_COUNTS:
            _refuse_missing_classes("Raabin-WBC", place, RAABIN_COUNTS[part], listed)
        files += [
            LabelledFile(f.source, folder, f"{place.name}/{f.member}", f.label, part)
            for f in listed
        ]
    return files


def compare_counts(files: Sequence[LabelledFile]) -> list[CountDifference]:
    """Compare the numbers of images with the published ones.

    Parameters
    ----------
    files : sequence of LabelledFile
        As `list_pbc` and `list_raabin` return them, or both behind one another.

    Returns
    -------
    list of CountDifference
        Empty if all is as published.
    """
    found = Counter((file.source, file.part, file.label) for file in files)
    sources = {file.source for file in files}
    published = {("pbc", "", label): count for label, count in PBC_COUNTS.items()} | {
        ("raabin", part, label): count
        for part, counts in RAABIN_COUNTS.items()
        for label, count in counts.items()
    }
    return [
        CountDifference(*key, found[key], count)
        for key, count in published.items()
        if key[0] in sources and found[key] != count
    ]


def _raabin_parts(folder: Path) -> dict[str, Path]:
    """Folder of each part that is there."""
    if not is_folder(folder):
        raise InputError(
            f"{folder} is not a folder; give the folder that holds Train, TestA and TestB"
        )
    places: dict[str, Path] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        plain = re.sub("[-_ ]", "", place.name).casefold()
        for part in _RAABIN_PARTS:
            if plain == part.casefold():
                if part in places:
                    raise InputError(
                        f"{places[part]} and {place} are both Raabin's {part}; remove one of them"
                    )
                places[part] = place
    missing = [part for part in RAABIN_COUNTS if part not in places]
    if missing:
        raise InputError(
            f"{folder} has no subfolder {missing[0]}; give the folder of Raabin's double-labeled "
            "crops, with Train, TestA and TestB in it"
        )
    return {part: places[part] for part in _RAABIN_PARTS if part in places}


def _refuse_missing_classes(
    dataset: str, folder: Path, counts: Mapping[str, int], files: Iterable[LabelledFile]
) -> None:
    there = {file.label for file in files}
    missing = [label for label in counts if label not in there]
    if missing:
        raise InputError(
            f"{folder} holds no images of {', '.join(missing)}; {dataset} has a folder for each: "
            "unpack it again"
        )
