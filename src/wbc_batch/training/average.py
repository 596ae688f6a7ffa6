"""One network from several: the mean of their weights (Wortsman et al. 2022, "model soups").

Networks trained from the same start by the same recipe err in different directions where they have seen
nothing; their mean errs less, at the cost of one. See docs/model.md. A head that begins with other random
weights ends elsewhere, and between the two lies nothing of use: hence one seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wbc_batch.classifier import Bundle, read_bundle
from wbc_batch.classifier.bundle import write_bundle
from wbc_batch.classifier.network import build_network
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.datasets.naming import Datasets
from wbc_batch.errors import InputError, ModelError
from wbc_batch.files import refuse_existing
from wbc_batch.schema import CLASSES
from wbc_batch.training.calibrate import BIAS, FITTED, calibrate, told_bias, with_bias
from wbc_batch.training.folders import read_cells
from wbc_batch.training.lineage import AVERAGE_OF, STARTED_FROM, images_used, recorded
from wbc_batch.training.settings import recorded_settings
from wbc_batch.training.start import Start
from wbc_batch.training.train import refuse_unfit

__all__ = ["average", "average_folders"]


def average_folders(
    name: str,
    models: Sequence[str | Path],
    training: Datasets,
    validation: Datasets,
    output: Path,
) -> Bundle:
    """Average models that were trained on folders of labelled cells and prepared data sets.

    Parameters
    ----------
    name, models, output
        As for `average`.
    training, validation : mapping of str to Path or ManifestPart
        What they were trained and validated on, see `wbc_batch.training.folders.train_folders`; drawn
        cells are of no use here.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError, ModelError, RunError
        As `average`, and if a data set cannot be used.
    """
    bundles = _alike(models)
    refuse_existing(output)
    cells, held = read_cells(training, validation, bundles[0].preprocessing)
    return average(name, models, cells, held, output)


def average(
    name: str,
    models: Sequence[str | Path],
    cells: LabelledCells,
    validation: LabelledCells,
    output: Path,
) -> Bundle:
    """Average the weights of models, and calibrate the result as a training would.

    Parameters
    ----------
    name : str
        Of the new model.
    models : sequence of str or Path
        Two or more bundles with the same network and preprocessing, trained from the same start with the
        same seed: with other cells, or for longer. One that is named twice counts twice.
    cells, validation : LabelledCells
        What they were trained and validated on, as for `wbc_batch.training.train.train`.
    output : Path
        Directory of the new bundle; must not be there yet.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If there are too few models, one does not say how it was trained, or nothing could be trained and
        validated on the cells.
    ModelError
        If a model cannot be used, or is of another kind than the first.
    RunError
        If `output` is there already or cannot be written.
    """
    bundles = _alike(models)
    first = bundles[0]
    refuse_existing(output)
    settings = recorded_settings(first)
    refuse_unfit(
        cells,
        validation,
        replace(settings, noisy=()),  # nothing is trained
        knows_classes=STARTED_FROM in first.training,
    )
    network = build_network(first.architecture, len(CLASSES), first.arguments)
    weights = _mean(
        [with_bias(bundle.load()[0].state_dict(), -told_bias(bundle)) for bundle in bundles]
    )
    network.load_state_dict(weights)
    start = first.training["start"]
    found = calibrate(network.eval(), cells, validation, settings, Start(network, start))
    described = replace(
        first,
        name=name,
        temperature=found.temperature,
        size_evidence=found.size_evidence,
        training={
            "start": start,
            **{k: v for k, v in first.training.items() if k == STARTED_FROM},
            AVERAGE_OF: [recorded(bundle) for bundle in bundles],
            "cells": cells.counts(),
            "digest": cells.digest,
            "validation_cells": validation.counts(),
            "validation_digest": validation.digest,
            BIAS: found.bias.tolist(),
            FITTED: list(found.fitted),
        },
        metrics={},
    )
    card = f"# {name}\n\nAveraged, not yet evaluated: `wbc-batch evaluate` writes this card.\n"
    return write_bundle(
        output,
        described,
        with_bias(weights, found.bias),
        found.novelty,
        card,
        conformal=found.conformal,
        images=images_used(cells, validation, bundles),
    )


def _alike(models: Sequence[str | Path]) -> list[Bundle]:
    """Read the models' descriptions; refuse what has no mean: another network, or another view of a cell."""
    if len(models) < 2:
        raise InputError("an average needs two models or more; give each with --of")
    bundles = [read_bundle(model) for model in models]
    first = bundles[0]
    for bundle in bundles:
        for what, own, wanted in _decisive(bundle, first):
            if own != wanted:
                raise ModelError(
                    f"{bundle.path} and {first.path} cannot be averaged: they differ in their {what}; "
                    "give models with the same preset, start, seed and licence"
                )
    return bundles


def _decisive(bundle: Bundle, first: Bundle) -> Iterator[tuple[str, object, object]]:
    """Name what two networks must share for weights between theirs to make sense, and to be allowed."""
    for what in ("architecture", "arguments", "preprocessing", "licence"):
        yield what, getattr(bundle, what), getattr(first, what)
    own, other = recorded_settings(bundle), recorded_settings(first)
    yield "seed", own.seed, other.seed
    yield "start", bundle.training["start"], first.training["start"]


def _mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor; what counts (batches seen) is the first one's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
