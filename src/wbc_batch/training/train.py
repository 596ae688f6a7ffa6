"""Train a network on canonical crops and leave a verified model bundle behind."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from wbc_batch.classifier.bundle import Bundle, bundles_in, read_bundle, write_bundle
from wbc_batch.classifier.devices import choose_device, enough_memory
from wbc_batch.classifier.network import all_arguments
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.datasets.labelled import LabelledCells, refuse_shared_images
from wbc_batch.errors import InputError, RunError
from wbc_batch.schema import CLASSES
from wbc_batch.training import run_folder
from wbc_batch.training.calibrate import BIAS, FITTED, Calibration, calibrate, with_bias
from wbc_batch.training.history import History
from wbc_batch.training.lineage import STARTED_FROM, images_used, recorded
from wbc_batch.training.loop import SILENT, Shown, fit
from wbc_batch.training.settings import Settings
from wbc_batch.training.start import Start, starting_network

__all__ = ["finished", "refuse_unfit", "train"]

_log = logging.getLogger(__name__)


def train(
    name: str,
    cells: LabelledCells,
    validation: LabelledCells,
    output: Path,
    settings: Settings,
    *,
    shown: Shown = SILENT,
    origin: Mapping[str, str] | None = None,
    force: bool = False,
) -> Bundle:
    """Train, keep an epoch, calibrate and write a bundle.

    A training that was stopped goes on after its last whole epoch, and comes to the same result; a
    finished one is not repeated.

    Parameters
    ----------
    name : str
        Of the model.
    cells : LabelledCells
        Training cells, prepared with `wbc_batch.training.batches.wide_preprocessing`; every class must be
        there, unless the training starts from a model that knows them.
    validation : LabelledCells
        Cells to choose the epoch and to calibrate on, prepared with ``settings.preprocessing``.
    output : Path
        Directory; gets ``training.json``, ``history.csv``, ``history.png`` and ``bundle/``, and
        ``checkpoint.pt`` as long as it is not finished.
    settings : Settings
    shown : Shown
    origin : mapping of str to str, optional
        What else must be the same for a training to go on, such as the folders of the cells.
    force : bool
        Replace a training that `output` holds.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If a class has no training or no validation cell, or both share a file.
    ModelError
        If the model to start from cannot be used.
    RunError
        If `output` holds something else, the same training with other settings or cells, or a finished one
        without its model, or if the training diverges.
    WbcError
        If the device runs out of memory.
    """
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    start = starting_network(settings)
    refuse_unfit(cells, validation, settings, knows_classes=start.bundle is not None)
    identity = {
        **_identity(name, settings, origin or {}),
        "starting weights": start.described,
        "training cells": _fingerprint(cells),
        "validation cells": _fingerprint(validation),
    }
    settings = replace(settings, replayed=_replayed(cells, start))
    with run_folder.locked(output):
        if run_folder.is_finished(output, identity, force):
            return _tell_finished(output)
        run_folder.begin(output, identity, force)
        with enough_memory(device, "the training"):
            network = start.network.to(device).to(memory_format=torch.channels_last)
            best, history = fit(network, cells, validation, output, settings, shown)
            network.load_state_dict(best)
            found = calibrate(network, cells, validation, settings, start)
        written = write_bundle(
            output / run_folder.BUNDLE,
            _describe(name, cells, validation, settings, start, history, found),
            with_bias(best, found.bias),
            found.novelty,
            _card(name),
            conformal=found.conformal,
            images=images_used(cells, validation, [start.bundle] if start.bundle else []),
        )
        run_folder.finish(output)
    return written


def finished(
    name: str, output: Path, settings: Settings, origin: Mapping[str, str], force: bool = False
) -> Bundle | None:
    """Return the bundle of the same training, if `output` holds it finished: before any cell is read.

    Parameters
    ----------
    name, output, settings, origin, force
        As for `train`.

    Raises
    ------
    RunError
        If `output` holds something else, the training with other settings or folders, or a finished one
        without its model.
    """
    if run_folder.is_finished(output, _identity(name, settings, origin), force):
        return _tell_finished(output)
    return None


def _identity(name: str, settings: Settings, origin: Mapping[str, str]) -> dict[str, str]:
    return {"name": name, **settings.described(), **origin}


def _replayed(cells: LabelledCells, start: Start) -> tuple[str, ...]:
    # Not those that an average's members name: drawn cells are no laboratory's.
    known: set[str] = set()
    record = start.bundle.training if start.bundle else None
    while record:
        known |= {*record.get("cells", {})}
        record = record.get(STARTED_FROM)
    return tuple(sorted({*cells.names} & known))


def _fingerprint(cells: LabelledCells) -> str:
    """Tell cells by their names, labels and pixels: a data set that was changed is another one."""
    pixels = sha256(np.ascontiguousarray(cells.crops).data).hexdigest()
    return f"{len(cells)} with digest {cells.digest[:16]}-{pixels[:16]}"


def _tell_finished(output: Path) -> Bundle:
    place = output / run_folder.BUNDLE
    if not bundles_in(place):
        raise RunError(
            f"{output} already holds this training, finished, but its model in {place} is missing; put it "
            "back, or add --force to train again"
        )
    _log.info("%s already holds this training, finished; add --force to train again", output)
    return read_bundle(place)


def _describe(
    name: str,
    cells: LabelledCells,
    validation: LabelledCells,
    settings: Settings,
    start: Start,
    history: History,
    found: Calibration,
) -> Bundle:
    return Bundle(
        name=name,
        architecture=settings.architecture,
        arguments=all_arguments(settings.architecture, settings.arguments),
        classes=CLASSES,
        preprocessing=settings.preprocessing,
        temperature=found.temperature,
        size_evidence=found.size_evidence,
        novelty_scale=1.0,
        rejection=start.bundle.rejection if start.bundle else Rejection(),
        training={
            "start": start.described,
            **({STARTED_FROM: recorded(start.bundle)} if start.bundle else {}),
            "cells": cells.counts(),
            "digest": cells.digest,
            "validation_cells": validation.counts(),
            "validation_digest": validation.digest,
            "settings": asdict(settings),
            "epochs": len(history),
            "best_epoch": history.kept_epoch,
            BIAS: found.bias.tolist(),
            FITTED: list(found.fitted),
        },
        # What is made of somebody's weights is still theirs.
        licence=start.bundle.licence if start.bundle else Bundle.licence,
    )


def _card(name: str) -> str:
    return f"# {name}\n\nTrained, not yet evaluated: `wbc-batch evaluate` writes this card.\n"


def refuse_unfit(
    cells: LabelledCells,
    validation: LabelledCells,
    settings: Settings,
    *,
    knows_classes: bool = False,
) -> None:
    """Refuse cells that nothing can be trained on.

    Parameters
    ----------
    cells, validation, settings
        As for `train`.
    knows_classes : bool
        The training starts from a model that knows the classes, so that cells of some will do.

    Raises
    ------
    InputError
        If a class has no training or no validation cell, both share a file, or a data set that is called
        noisy is not there.
    """
    unknown = sorted(set(settings.noisy) - set(cells.names))
    if unknown:
        raise InputError(
            f"there is no training data set {unknown[0]!r} to call noisy; "
            f"the data sets are {', '.join(sorted(set(cells.names)))}"
        )
    for kind, part in (("training", cells), ("validation", validation)):
        if not len(part):
            raise InputError(
                f"there are no {kind} cells: a class with only one or two cells has none to hold out; "
                "add cells, or give others with --validation"
            )
        missing = [c for k, c in enumerate(CLASSES) if not (part.labels == k).any()]
        if missing and not knows_classes:
            raise InputError(f"there are no {kind} cells of {', '.join(missing)}; add some")
    refuse_shared_images(cells, validation)
