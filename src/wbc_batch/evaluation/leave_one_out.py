"""How well a model's recipe does in a laboratory that it has not seen: leave one data set out at a time."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wbc_batch.classifier import Bundle, Classifier, read_bundle
from wbc_batch.classifier.bundle import bundles_in
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.drawn import drawn_for_training, refuse_drawn_name
from wbc_batch.datasets.held_out import held_out
from wbc_batch.datasets.labelled import (
    LabelledCells,
    merge,
    read_dataset,
    refuse_shared_images,
    select,
)
from wbc_batch.datasets.naming import Datasets
from wbc_batch.errors import InputError
from wbc_batch.evaluation.assessment import Assessment, facts_of
from wbc_batch.evaluation.figures import Judged, judge
from wbc_batch.evaluation.files import LEAVE_ONE_OUT, file_names, open_folder, write_files
from wbc_batch.schema import CLASSES, DRAWN, LEFT_OUT, NEVER_TRAINED_ON
from wbc_batch.training.average import average
from wbc_batch.training.batches import wide_preprocessing
from wbc_batch.training.lineage import AVERAGE_OF
from wbc_batch.training.loop import SILENT, Shown
from wbc_batch.training.settings import Settings, recorded_settings
from wbc_batch.training.train import refuse_unfit, train

__all__ = ["Recipe", "leave_one_out", "recipes"]

#: Shows one training while a block runs.
Show = Callable[[Settings], AbstractContextManager[Shown]]

_log = logging.getLogger(__name__)

# Fraction of the training cells that chooses the epoch: never the data set left out.
_HELD = 0.1


def leave_one_out(
    model: str | Path,
    sources: Datasets,
    also: Datasets,
    output: Path,
    epochs: int | None = None,
    device: str = "auto",
    show: Show = lambda _settings: nullcontext(SILENT),
    command: str = "",
) -> Assessment:
    """Train a model's recipe on all data sets but one, each in turn, and test on the one left out.

    A tenth of the training cells chooses the epoch (see `wbc_batch.datasets.held_out`), never those left out.
    Drawn cells are trained on in the same number as in the model. Of a model that is an average, each
    training is done anew, and these are averaged. A run that was stopped goes on: what
    is trained in `output` already is not trained again.

    Parameters
    ----------
    model : str or Path
        A bundle; its settings are used, its weights are not.
    sources : mapping of str to Path or ManifestPart
        Two or more data sets.
    also : mapping of str to Path or ManifestPart
        Data sets that are tested on each time and never trained on.
    output : Path
        New folder, or one that this command was stopped in. Gets a training in ``without-NAME/`` each, and
        `wbc_batch.evaluation.files.write_files`.
    epochs : int, optional
        Instead of the recipe's.
    device : str
    show : callable
        Such as `wbc_batch.training.progress.shown_training`: gives a context in which one training is shown.
    command : str
        For the record.

    Returns
    -------
    Assessment
        Of each data set left out, then of each of `also` by each network.

    Raises
    ------
    InputError
        If there are too few data sets, one cannot be used or shares an image with another, or the model does
        not say how it was trained: before anything is trained.
    RunError
        If `output` holds something else.
    """
    bundle = read_bundle(model)
    members = [_for_this_run(member, epochs, device) for member in recipes(bundle)]
    _check(sources, also)
    open_folder(output, LEAVE_ONE_OUT)
    plain = bundle.preprocessing
    narrow = {name: read_dataset(name, place, plain) for name, place in sources.items()}
    others = {name: read_dataset(name, place, plain) for name, place in also.items()}
    for left_out in sources:
        _refuse_unfit(left_out, narrow, others, members)
    wide = _wide(sources, max(member.drawn for member in members), plain)
    known: dict[str, Judged] = {}
    elsewhere: dict[str, Judged] = {}
    for left_out in sources:
        _log.info("leaving out %s", left_out)
        made = _train_without(left_out, narrow, wide, output, members, show)
        classifier = Classifier.load(made.path, device)
        known[left_out] = judge(classifier, narrow[left_out])
        for name, cells in others.items():
            elsewhere[f"{name}, {left_out} left out"] = judge(classifier, cells)
    roles = dict.fromkeys(known, LEFT_OUT) | dict.fromkeys(elsewhere, NEVER_TRAINED_ON)
    facts = facts_of(classifier, command) | {"Model": f"{bundle.name}, trained again"}
    del facts["SHA-256 of the weights"]
    assessment = Assessment(bundle.name, facts, known | elsewhere, roles)
    write_files(output, LEAVE_ONE_OUT, assessment)
    return assessment


@dataclass(frozen=True)
class Recipe:
    """How a model was trained.

    Attributes
    ----------
    settings : Settings
    drawn : int
        Synthetic cells among those of the training.
    """

    settings: Settings
    drawn: int


def recipes(bundle: Bundle) -> list[Recipe]:
    """Read how a model was trained, or, of an average, each of its members.

    Raises
    ------
    InputError
        If the model was not trained here, or was itself fine-tuned from another model: nobody can leave
        out what that one has seen.
    """
    members = bundle.training.get(AVERAGE_OF) or [bundle.training]
    return [_recipe(replace(bundle, training=member)) for member in members]


def _recipe(bundle: Bundle) -> Recipe:
    settings = recorded_settings(bundle)
    if settings.start not in ("random", "imagenet"):
        raise InputError(
            f"the model {bundle.name!r} was fine-tuned from {settings.start}, which may have seen the "
            "data set that is left out; choose a model that started from random or ImageNet weights"
        )
    return Recipe(settings, sum(bundle.training.get("cells", {}).get(DRAWN, {}).values()))


def _for_this_run(recipe: Recipe, epochs: int | None, device: str) -> Recipe:
    settings = replace(recipe.settings, device=device)
    return replace(
        recipe, settings=settings if epochs is None else replace(settings, epochs=epochs)
    )


def _check(sources: Datasets, also: Datasets) -> None:
    if len(sources) < 2:
        raise InputError("to leave one data set out, give two or more")
    twice = sorted({*sources} & {*also})
    if twice:
        raise InputError(
            f"{twice[0]!r} is given both as a data set to train on and with --also; give it only once"
        )
    refuse_drawn_name(sources, also)


def _refuse_unfit(
    left_out: str,
    narrow: Mapping[str, LabelledCells],
    others: Mapping[str, LabelledCells],
    members: Sequence[Recipe],
) -> None:
    """Refuse now what would end a training later, and tests on cells that were trained on."""
    cells = _others(narrow, left_out)
    for tested in (narrow[left_out], *others.values()):
        refuse_shared_images(cells, tested, "training and test")
    held = held_out(cells, _HELD)
    there, kept = (set(part.tolist()) for part in (cells.labels, cells.labels[held]))
    if few := [name for k, name in enumerate(CLASSES) if k in there - kept]:
        raise InputError(
            f"without {left_out!r} there are too few cells of {', '.join(few)} to hold out {_HELD:.0%} of "
            "them for choosing the epoch; add cells or data sets"
        )
    for member in members:
        settings = _settings(member, cells)
        refuse_unfit(select(cells, ~held), select(cells, held), settings)


def _others(cells: Mapping[str, LabelledCells], *without: str) -> LabelledCells:
    return merge([part for name, part in cells.items() if name not in without])


def _settings(member: Recipe, cells: LabelledCells) -> Settings:
    """Return how to train on these cells, whichever data sets they are of."""
    known = member.settings
    return replace(known, noisy=tuple(name for name in known.noisy if name in cells.names))


def _wide(sources: Datasets, drawn: int, preprocessing: Preprocessing) -> dict[str, LabelledCells]:
    """Read the data sets, and draw cells, as trainings want them."""
    preprocessing = wide_preprocessing(preprocessing)
    cells = {name: read_dataset(name, place, preprocessing) for name, place in sources.items()}
    if drawn:
        cells[DRAWN] = drawn_for_training(drawn, preprocessing)
    return cells


def _train_without(
    left_out: str,
    narrow: Mapping[str, LabelledCells],
    wide: Mapping[str, LabelledCells],
    output: Path,
    members: Sequence[Recipe],
    show: Show,
) -> Bundle:
    """Train by each recipe without one data set; average, where there are several."""
    title = f"without-{file_names(narrow)[left_out]}"
    cells = _others(narrow, left_out)
    held = held_out(cells, _HELD)
    training = select(_others(wide, left_out, DRAWN), ~held)
    validation = select(cells, held)
    bundles = []
    for member in members:
        number = 1 + members.index(member)  # what counts twice is trained once
        place = output / title if len(members) == 1 else output / title / f"training-{number}"
        bundles.append(_train(title, training, validation, wide.get(DRAWN), place, member, show))
    if len(bundles) == 1:
        return bundles[0]
    place = output / title / "bundle"
    if bundles_in(place):
        return read_bundle(place)
    shutil.rmtree(place, ignore_errors=True)  # written by half when a run was stopped
    return average(title, [bundle.path for bundle in bundles], training, validation, place)


def _train(
    title: str,
    training: LabelledCells,
    validation: LabelledCells,
    drawn: LabelledCells | None,
    place: Path,
    member: Recipe,
    show: Show,
) -> Bundle:
    if drawn is not None and member.drawn:
        some = np.arange(len(drawn)) < member.drawn
        training = merge([training, select(drawn, some)])
    settings = _settings(member, training)
    with show(settings) as shown:
        return train(title, training, validation, place, settings, shown=shown)
