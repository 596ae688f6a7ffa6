"""Train and evaluate from folders: what the command line calls."""

from dataclasses import replace
from pathlib import Path

from wbc_batch.classifier import Bundle, Classifier
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import InputError
from wbc_batch.training.assessment import Assessment, facts_of, role
from wbc_batch.training.card import write_card
from wbc_batch.training.datasets import LabelledCells, drawn_cells, merge, read_dataset
from wbc_batch.training.evaluate import judge
from wbc_batch.training.evaluation_files import EVALUATION, open_folder, write_files
from wbc_batch.training.held_out import SHARE, held_out, select
from wbc_batch.training.loop import Report, Step
from wbc_batch.training.named_datasets import Datasets, named_folders, named_validation
from wbc_batch.training.train import Settings, finished, train, wide_preprocessing
from wbc_batch.training.unknown import judge_unknown, read_unknown

__all__ = ["evaluate_folders", "named_folders", "named_validation", "train_folders"]

# Drawn cells of training and evaluation never share a seed.
_DRAWN_TRAINING, _DRAWN_EVALUATION = 1, 2
_DRAWN = "drawn"


def train_folders(
    name: str,
    training: Datasets,
    validation: Datasets,
    output: Path,
    settings: Settings,
    drawn: int = 0,
    report: Report = lambda _row: None,
    *,
    step: Step = lambda _epoch, _batch, _loss: None,
    force: bool = False,
) -> Bundle:
    """Train on folders of labelled cells and prepared data sets.

    Parameters
    ----------
    name : str
        Of the model.
    training, validation : mapping of str to Path or ManifestPart
        Data sets by their name, see `wbc_batch.training.datasets.read_dataset`. Without any for validation,
        a fixed part of the training cells is held out, see `wbc_batch.training.held_out`.
    output : Path
        A new or empty directory, or that of the same training, which goes on then.
    settings : Settings
    drawn : int
        Synthetic cells to add to the training cells.
    report, step : callable
        See `wbc_batch.training.train.train`.
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
    }
    done = finished(name, output, settings, origin, force)
    if done is not None:
        return done
    cells = _read(training, wide_preprocessing(settings.preprocessing))
    if validation:
        held = _read(validation, settings.preprocessing)
    else:
        chosen = held_out(cells)
        held = select(_read(training, settings.preprocessing), chosen)
        cells = select(cells, ~chosen)
    if drawn:
        wide = wide_preprocessing(settings.preprocessing)
        cells = merge([cells, drawn_cells(drawn, _DRAWN_TRAINING, wide)])
    return train(name, cells, held, output, settings, report, step=step, origin=origin, force=force)


def _places(datasets: Datasets) -> str:
    return ", ".join(
        f"{name}={d.resolve() if isinstance(d, Path) else d}" for name, d in datasets.items()
    )


def _read(datasets: Datasets, preprocessing: Preprocessing) -> LabelledCells:
    return merge([read_dataset(name, d, preprocessing) for name, d in datasets.items()])


def evaluate_folders(
    model: str | Path,
    datasets: Datasets,
    drawn: int = 0,
    device: str = "auto",
    output: Path | None = None,
    card: bool = False,
    unknown: Datasets | None = None,
    command: str = "",
) -> Assessment:
    """Evaluate a model on folders of labelled cells and prepared data sets.

    Parameters
    ----------
    model : str or Path
    datasets : mapping of str to Path or ManifestPart
        Cells of the five classes, by the name of their data set.
    drawn : int
        Synthetic cells to evaluate on as well.
    device : str
    output : Path, optional
        New folder, or that of an earlier evaluation, for what
        `wbc_batch.training.evaluation_files.write_files` writes.
    card : bool
        Write the figures into the bundle and its card, too.
    unknown : mapping of str to Path or ManifestPart, optional
        Cells of no class, see `wbc_batch.training.unknown.read_unknown`.
    command : str
        For the record.

    Returns
    -------
    Assessment

    Raises
    ------
    InputError
        If no data set is named, or one cannot be used.
    RunError
        If `output` holds something else.
    """
    classifier = Classifier.load(model, device)
    unknown = unknown or {}
    _check_names(datasets, unknown, drawn)
    if output is not None:
        open_folder(output, EVALUATION)
    bundle = classifier.bundle
    known = {
        name: judge(classifier, read_dataset(name, dataset, bundle.preprocessing))
        for name, dataset in datasets.items()
    }
    if drawn:
        cells = drawn_cells(drawn, _DRAWN_EVALUATION, bundle.preprocessing)
        known[_DRAWN] = judge(classifier, cells)
    assessment = Assessment(
        bundle.name,
        facts_of(classifier, command),
        known,
        {name: role(bundle, name) for name in known},
        {
            name: judge_unknown(classifier, read_unknown(name, d, bundle.preprocessing), known)
            for name, d in unknown.items()
        },
    )
    if output is not None:
        write_files(output, EVALUATION, assessment)
    if card:
        replace(bundle, metrics=assessment.metrics()).describe(write_card(bundle, assessment))
    return assessment


def _check_names(datasets: Datasets, unknown: Datasets, drawn: int) -> None:
    if drawn and _DRAWN in datasets:
        raise InputError("a data set is called 'drawn', as the synthetic cells; name it otherwise")
    if not (datasets or drawn):
        raise InputError("no data set was named; name a folder with one folder per class")
    twice = sorted({*datasets} & {*unknown})
    if twice:
        raise InputError(f"{twice[0]!r} is named as known and as unknown cells; name it once")
