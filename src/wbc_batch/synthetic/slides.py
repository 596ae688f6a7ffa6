"""Slides of drawn cells on disk: one folder per slide, and the truth beside them."""

import csv
import os
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.csv_rows import read_rows
from wbc_batch.errors import InputError, RunError
from wbc_batch.files import write_file, writing
from wbc_batch.paths import exists
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic.smear import draw_stained
from wbc_batch.synthetic.stain import random_stain

__all__ = ["write_slides"]

_TRUTH, _COLUMNS = "labels.csv", ("path", "label")

# Shares per class in the order of CLASSES; slides take them in turn.
_DIFFERENTIALS = (
    (0.02, 0.04, 0.27, 0.07, 0.60),  # much like a healthy adult
    (0.02, 0.34, 0.21, 0.06, 0.37),  # eosinophilia
    (0.02, 0.03, 0.65, 0.07, 0.23),  # lymphocytosis
    (0.02, 0.04, 0.24, 0.30, 0.40),  # monocytosis
    (0.18, 0.05, 0.20, 0.07, 0.50),  # basophilia
)


def write_slides(folder: Path, slides: int = 3, cells: int = 100, seed: int = 0) -> list[Path]:
    """Write synthetic slides as ``folder/slides/slide-1/cell-0001.png``, ..., and ``folder/labels.csv``.

    The slides differ in stain and in their differential (the first is like a healthy adult's, then
    eosinophilia, lymphocytosis, monocytosis, basophilia, and again); from five cells on every class
    is present. Nothing but ``labels.csv`` (columns ``path``, relative to `folder`, and ``label``)
    tells the class of a cell. The same seed writes the same files again.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    slides, cells : int
        Number of slides, and of cells on each; at least 1.
    seed : int
        Not negative.

    Returns
    -------
    list of Path
        The images, in the order of ``labels.csv``.

    Raises
    ------
    InputError
        If a number is out of range.
    RunError
        If the folder holds other slides that would mix with these, or a ``labels.csv`` of something else,
        or the files cannot be written.
    """
    for name, value, least in (("slides", slides, 1), ("cells", cells, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")
    folder = Path(folder)
    paths = [
        folder / "slides" / f"slide-{slide}" / f"cell-{cell:04d}.png"
        for slide in range(1, slides + 1)
        for cell in range(1, cells + 1)
    ]
    _refuse_strangers(folder, paths)
    labels: list[str] = []
    with writing(folder):
        for slide, stream in enumerate(np.random.default_rng(seed).spawn(slides)):
            on_slide = paths[slide * cells : (slide + 1) * cells]
            labels += _write_slide(on_slide, _DIFFERENTIALS[slide % len(_DIFFERENTIALS)], stream)
        write_file(folder / _TRUTH, _table(_names(folder, paths), labels))
    return paths


def _refuse_strangers(folder: Path, paths: list[Path]) -> None:
    # Python 3.11 looks for no names in a folder that it may not look at.
    there = folder.glob("slides/slide-*/*") if exists(folder) else ()
    strangers = sorted(set(there) - set(paths))
    if strangers:
        raise RunError(
            f"{folder} already holds other slides, such as {strangers[0].relative_to(folder)}; "
            "remove them, or choose another folder with -o"
        )
    truth = folder / _TRUTH
    if os.path.lexists(truth) and not _is_of(truth, _names(folder, paths)):
        raise RunError(
            f"{truth} describes other cells and would be overwritten; move it away, or choose "
            "another folder with -o"
        )


def _is_of(truth: Path, names: list[str]) -> bool:
    """Tell whether a table of labels is one of the cells of these names."""
    try:
        (_, columns), *rows = read_rows(truth)
    except (InputError, ValueError):  # it is no table, or an empty one
        return False
    return (*columns,) == _COLUMNS and [row[0] for _, row in rows] == names


def _names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _write_slide(
    paths: list[Path], shares: tuple[float, ...], rng: np.random.Generator
) -> list[str]:
    """Draw one slide, all in one stain; return the labels."""
    stain = random_stain(rng)
    counts = _counts(len(paths), shares)
    labels = [name for name, count in zip(CLASSES, counts, strict=True) for _ in range(count)]
    labels = [labels[i] for i in rng.permutation(len(labels)).tolist()]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, label, stream in zip(paths, labels, rng.spawn(len(paths)), strict=True):
        path.write_bytes(_png(draw_stained(label, stream, stain)))
    return labels


def _counts(total: int, shares: tuple[float, ...]) -> list[int]:
    """Share `total` out by largest remainders, after one to each class where there are enough."""
    least = 1 if total >= len(shares) else 0
    exact = np.array(shares) / sum(shares) * (total - least * len(shares))
    counts = np.floor(exact).astype(int)
    remainders = np.argsort(-(exact - counts), kind="stable")
    counts[remainders[: total - least * len(shares) - counts.sum()]] += 1
    return (counts + least).tolist()


def _png(image: NDArray[np.uint8]) -> bytes:
    """Encode RGB as PNG, fast rather than small."""
    _, encoded = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def _table(names: list[str], labels: list[str]) -> bytes:
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    rows.writerows(zip(names, labels, strict=True))
    return text.getvalue().encode()
