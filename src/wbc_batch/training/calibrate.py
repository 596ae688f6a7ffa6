"""What a trained network is told about its own certainty: on validation cells, and on varied ones."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wbc_batch.classifier import Bundle
from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.calibration import fit_temperature
from wbc_batch.classifier.conformal import conformal_scores
from wbc_batch.classifier.devices import choose_precision
from wbc_batch.classifier.novelty import NoveltyModel, fit_novelty
from wbc_batch.classifier.nucleus_size import SizeEvidence, fit_size_evidence
from wbc_batch.classifier.predictions import Rejection, decide
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.datasets.labelled import LabelledCells, select
from wbc_batch.schema import CLASSES, DRAWN
from wbc_batch.training.augmentation import augment
from wbc_batch.training.batches import centre
from wbc_batch.training.settings import USUAL_DIFFERENTIAL, Settings, recorded_settings
from wbc_batch.training.start import Start

__all__ = ["BIAS", "FITTED", "Calibration", "calibrate", "told_bias", "with_bias"]

#: What a bundle's record of its training calls the bias that it was told.
BIAS = "differential_bias"
#: And which of "temperature" and "novelty" were fitted on its own cells, not kept from the model before.
FITTED = "fitted"

# With fewer validation cells a temperature, with fewer training cells of a class its place among the traces
# would be a guess.
_ENOUGH_TO_CALIBRATE, _ENOUGH_TO_KNOW = 200, 100
# Fraction of the validation cells that count as known.
_KEPT = 0.99
# Pictures that are varied before they are computed.
_AT_ONCE = 256


@dataclass(frozen=True)
class Calibration:
    """What a bundle needs beside the weights.

    Attributes
    ----------
    size_evidence : SizeEvidence or None
    temperature : float
    novelty : NoveltyModel or None
    conformal : tuple of ndarray of float32
        See `wbc_batch.classifier.conformal.conformal_scores`.
    bias : ndarray of float32, shape (classes,)
        To be added to that of the network's head, so that the rest is true: how often the classes come in
        blood.
    fitted : tuple of str
        See `FITTED`.
    """

    size_evidence: SizeEvidence | None
    temperature: float
    novelty: NoveltyModel | None
    conformal: tuple[NDArray[np.float32], ...]
    bias: NDArray[np.float32]
    fitted: tuple[str, ...]


def calibrate(
    network: Network,
    cells: LabelledCells,
    validation: LabelledCells,
    settings: Settings,
    start: Start,
) -> Calibration:
    """Fit what sizes say, the temperature, the novelty score and the scores of prediction sets.

    How often the classes come in blood is no matter of the validation cells, whose classes are chosen. So the
    temperature is fitted first, and what is then added to calibrated logits is the same for every network.

    Where the cells are too few to tell better, a model that was trained on keeps its temperature, what sizes
    say to it, and its novelty score; the score's scale then grows until the new cells count as known. One
    that was never calibrated has nothing to keep. Drawn cells say nothing here, where there are others.

    Parameters
    ----------
    network : Network
        Trained, and not yet told how often the classes come.
    cells, validation : LabelledCells
        As for `wbc_batch.training.train.train`.
    settings : Settings
    start : Start

    Returns
    -------
    Calibration
    """
    cells = _photographed(cells)
    device = next(network.parameters()).device
    precision = choose_precision("auto", device)
    backend = TorchBackend(copy.deepcopy(network), device, precision)
    sizes = fit_size_evidence(cells.sizes, cells.labels, cells.names, len(CLASSES))
    if sizes is None and start.bundle:
        sizes = start.bundle.size_evidence
    evidence = 0.0 if sizes is None else sizes.log_likelihood(validation.sizes)
    logits, known = backend.run(validation.crops)
    kept = _kept_temperature(start, validation)
    temperature = fit_temperature(logits, validation.labels, evidence) if kept is None else kept
    own_values = {"temperature": kept is None, "novelty": _kept_novelty(start, cells) is None}
    prior = _prior(settings.prior)
    told = logits + temperature * (evidence + prior)
    probabilities = decide(told, None, temperature, Rejection()).probabilities
    return Calibration(
        sizes,
        temperature,
        _novelty(backend, cells, known, settings, start),
        conformal_scores(probabilities, validation.labels),
        temperature * prior,
        tuple(name for name, own in own_values.items() if own),
    )


def told_bias(bundle: Bundle) -> NDArray[np.float32]:
    """Look up how often the classes come, as a trained network's head was told.

    Earlier versions told all networks the same, whatever their temperature.
    """
    before = _prior(recorded_settings(bundle).prior)
    return np.array(bundle.training.get(BIAS, before), np.float32)


def with_bias(weights: Mapping[str, Tensor], bias: NDArray[np.float32]) -> dict[str, Tensor]:
    """Add something to the bias of a network's head."""
    return {**weights, "head.bias": weights["head.bias"] + torch.from_numpy(bias)}


def _prior(share: float) -> NDArray[np.float32]:
    """Take a share of the logarithm of the usual differential, without moving its mean."""
    logarithm = np.log(np.array(USUAL_DIFFERENTIAL, np.float32))
    return share * (logarithm - logarithm.mean())


def _photographed(cells: LabelledCells) -> LabelledCells:
    """Leave drawn cells out: neither their sizes nor their looks say what is usual."""
    photographed = np.array(cells.names) != DRAWN
    return select(cells, photographed) if photographed.any() else cells


def _kept_temperature(start: Start, validation: LabelledCells) -> float | None:
    """Look up the temperature of the model that was trained on, where the cells are too few for another."""
    if start.bundle is None or len(validation) >= _ENOUGH_TO_CALIBRATE:
        return None
    calibrated = "validation_cells" in start.bundle.training  # as no imported model is
    return start.bundle.temperature if calibrated else None


def _kept_novelty(start: Start, cells: LabelledCells) -> NoveltyModel | None:
    return start.novelty if _fewest(cells) < _ENOUGH_TO_KNOW else None


def _fewest(cells: LabelledCells) -> int:
    """Count the cells of the rarest class."""
    return int(np.bincount(cells.labels, minlength=len(CLASSES)).min())


def _novelty(
    backend: TorchBackend,
    cells: LabelledCells,
    known: NDArray[np.float32],
    settings: Settings,
    start: Start,
) -> NoveltyModel | None:
    before = _kept_novelty(start, cells)
    if before is not None:
        reach = float(np.quantile(before.score(known), _KEPT))
        return replace(before, scale=before.scale * max(1.0, reach))
    if not _fewest(cells):  # a model without a novelty score, trained on with cells of some classes
        return None
    traces = backend.run(centre(cells.crops, settings.preprocessing.size))[1]
    varied = np.concatenate([backend.run(some)[1] for some in _varied(cells, settings)])
    return fit_novelty(traces, varied, cells.labels, known, kept=_KEPT)


def _varied(cells: LabelledCells, settings: Settings) -> Iterator[NDArray[np.uint8]]:
    """Every training cell once, varied as in training, some at a time."""
    rng = np.random.default_rng(settings.seed)
    size = settings.preprocessing.size
    for first in range(0, len(cells), _AT_ONCE):
        some = cells.crops[first : first + _AT_ONCE]
        yield np.stack([augment(crop, size, settings.augmentation, rng) for crop in some])
