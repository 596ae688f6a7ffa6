"""Train and evaluate from folders: what the command line calls."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from wbc_batch.classifier import Bundle, Classifier
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import InputError, RunError
from wbc_batch.training.card import write_card
from wbc_batch.training.datasets import LabelledCells, drawn_cells, merge, read_dataset
from wbc_batch.training.evaluate import Evaluation, evaluate
from wbc_batch.training.train import Settings, train, wide_preprocessing

__all__ = ["evaluate_folders", "named_folders", "train_folders"]

# Drawn cells of training and evaluation never share a seed.
_DRAWN_TRAINING, _DRAWN_EVALUATION = 1, 2


def named_folders(arguments: list[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` or ``FOLDER`` arguments; a folder without a name is called by its own.

    Raises
    ------
    InputError
        If two data sets have the same name.
    """
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals:
            name, folder = Path(argument).resolve().name, argument
        if name in folders:
            raise InputError(
                f"two data sets are called {name!r}: {folders[name]} and {folder}; "
                "name one of them otherwise, as NAME=FOLDER"
            )
        folders[name] = Path(folder)
    return folders


def train_folders(
    name: str,
    training: Mapping[str, Path],
    validation: Mapping[str, Path],
    output: Path,
    settings: Settings,
    drawn: int = 0,
    report: Callable[[dict[str, float]], None] = lambda _row: None,
) -> Bundle:
    """Train on folders of labelled cells.

    Parameters
    ----------
    name : str
        Of the model.
    training, validation : mapping of str to Path
        Folders by the name of their data set, see `wbc_batch.training.datasets.read_dataset`.
    output : Path
        New or empty directory.
    settings : Settings
    drawn : int
        Synthetic cells to add to the training cells.
    report : callable
        Called with each epoch's row.

    Returns
    -------
    Bundle
        In ``output / "bundle"``.

    Raises
    ------
    InputError
        If a data set cannot be used.
    RunError
        If `output` holds something already.
    """
    if output.exists() and any(output.iterdir()):
        raise RunError(f"{output} is not empty; name a new directory for this training")
    wide = wide_preprocessing(settings.preprocessing)
    parts = [read_dataset(key, folder, wide) for key, folder in training.items()]
    if drawn:
        parts.append(drawn_cells(drawn, _DRAWN_TRAINING, wide))
    held = [read_dataset(key, folder, settings.preprocessing) for key, folder in validation.items()]
    return train(name, merge(parts), merge(held), output, settings, report)


def evaluate_folders(
    model: str | Path,
    folders: Mapping[str, Path],
    drawn: int = 0,
    device: str = "auto",
    output: Path | None = None,
    card: bool = False,
) -> dict[str, Evaluation]:
    """Evaluate a model on folders of labelled cells.

    Parameters
    ----------
    model : str or Path
    folders : mapping of str to Path
        Folders by the name of their data set.
    drawn : int
        Synthetic cells to evaluate on as well.
    device : str
    output : Path, optional
        File for the figures as JSON.
    card : bool
        Write the figures into the bundle and its card, too.

    Returns
    -------
    dict of str to Evaluation
        By data set.
    """
    classifier = Classifier.load(model, device)
    evaluations = {
        cells.names[0]: evaluate(classifier, cells)
        for cells in _data(folders, drawn, classifier.bundle.preprocessing)
    }
    figures = {name: evaluation.to_dict() for name, evaluation in evaluations.items()}
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if card:
        bundle = replace(classifier.bundle, metrics=figures)
        bundle.describe(write_card(bundle, evaluations))
    return evaluations


def _data(
    folders: Mapping[str, Path], drawn: int, preprocessing: Preprocessing
) -> "list[LabelledCells]":
    data = [read_dataset(name, folder, preprocessing) for name, folder in folders.items()]
    if drawn:
        if "drawn" in folders:
            raise InputError(
                "a data set is called 'drawn', as the synthetic cells; name it otherwise"
            )
        data.append(drawn_cells(drawn, _DRAWN_EVALUATION, preprocessing))
    if not data:
        raise InputError("no data set was named; name a folder with one folder per class")
    return data
