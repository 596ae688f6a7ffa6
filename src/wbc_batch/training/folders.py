"""Train on named data sets: what the command line calls."""

from pathlib import Path

from wbc_batch.classifier import Bundle
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.drawn import drawn_for_training, refuse_drawn_name
from wbc_batch.datasets.held_out import SHARE, held_out
from wbc_batch.datasets.labelled import (
    LabelledCells,
    files_digest,
    merge,
    read_datasets,
    select,
    tell_copies,
)
from wbc_batch.datasets.naming import Datasets
from wbc_batch.paths import resolved
from wbc_batch.training.batches import wide_preprocessing
from wbc_batch.training.loop import SILENT, Shown
from wbc_batch.training.settings import Settings
from wbc_batch.training.train import finished, train

__all__ = ["read_cells", "train_folders"]


def train_folders(
    name: str,
    training: Datasets,
    validation: Datasets,
    output: Path,
    settings: Settings,
    drawn: int = 0,
    *,
    shown: Shown = SILENT,
    force: bool = False,
) -> Bundle:
    """Train on folders of labelled cells and prepared data sets.

    Parameters
    ----------
    name : str
        Of the model.
    training, validation : mapping of str to Path or ManifestPart
        Data sets by their name, see `wbc_batch.datasets.labelled.read_dataset`. Without any for validation,
        a fixed part of the training cells is held out, see `wbc_batch.datasets.held_out`.
    output : Path
        A new or empty directory, or that of the same training, which goes on then.
    settings : Settings
    drawn : int
        Synthetic cells to add to the training cells.
    shown : Shown
    force : bool
        Replace another training.

    Returns
    -------
    Bundle
        In ``output / "bundle"``.

    Raises
    ------
    InputError
        If a data set cannot be used.
    ModelError
        If the model to start from cannot be used.
    RunError
        If `output` holds something else.
    """
    origin = {
        "training data sets": _places(training),
        "validation data sets": _places(validation) or f"{SHARE:.0%} held out",
        "drawn cells": str(drawn),
        "training files": _contents(training),
        "validation files": _contents(validation),
    }
    done = finished(name, output, settings, origin, force)
    if done is not None:
        return done
    cells, held = read_cells(training, validation, settings.preprocessing)
    tell_copies(cells)
    if drawn:
        wide = wide_preprocessing(settings.preprocessing)
        cells = merge([cells, drawn_for_training(drawn, wide)])
    return train(name, cells, held, output, settings, shown=shown, origin=origin, force=force)


def read_cells(
    training: Datasets, validation: Datasets, preprocessing: Preprocessing
) -> tuple[LabelledCells, LabelledCells]:
    """Read the cells of a training, and those that it is validated on.

    Parameters
    ----------
    training, validation
        As for `train_folders`.
    preprocessing : Preprocessing
        Of the model.

    Returns
    -------
    training : LabelledCells
        Prepared with a margin, see `wbc_batch.training.batches.wide_preprocessing`.
    validation : LabelledCells

    Raises
    ------
    InputError
        If a data set cannot be used, or is called as the synthetic cells.
    """
    refuse_drawn_name(training, validation)
    cells = read_datasets(training, wide_preprocessing(preprocessing))
    if validation:
        return cells, read_datasets(validation, preprocessing)
    chosen = held_out(cells)
    return select(cells, ~chosen), select(read_datasets(training, preprocessing), chosen)


def _places(datasets: Datasets) -> str:
    return ", ".join(
        f"{name}={resolved(d) if isinstance(d, Path) else d}" for name, d in datasets.items()
    )


def _contents(datasets: Datasets) -> str:
    return ", ".join(f"{name}={files_digest(name, d)[:16]}" for name, d in datasets.items())
