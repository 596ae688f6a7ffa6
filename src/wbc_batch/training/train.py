"""Train a network on canonical crops and leave a verified model bundle behind."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from wbc_batch.classifier.bundle import Bundle, write_bundle
from wbc_batch.classifier.calibration import fit_temperature
from wbc_batch.classifier.network import CompactResNet, all_arguments, build_network
from wbc_batch.classifier.novelty import fit_novelty
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.classifier.torch_backend import (
    PRECISIONS,
    TorchBackend,
    choose_device,
    choose_precision,
)
from wbc_batch.errors import InputError
from wbc_batch.schema import CLASSES
from wbc_batch.training.augmentation import Augmentation, augment
from wbc_batch.training.datasets import LabelledCells, sampling_weights
from wbc_batch.training.history import History
from wbc_batch.training.loss import training_loss

__all__ = ["CHECKPOINT", "MARGIN", "Settings", "train"]

#: Weights of the best epoch so far, kept in case the training is stopped.
CHECKPOINT = "best.safetensors"

#: Training crops are this much wider than what the network sees, so that they can be turned and shifted.
MARGIN = 1.4


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    architecture : str
    arguments : dict
        Of the architecture.
    preprocessing : Preprocessing
    augmentation : Augmentation
    epochs : int
    cells_per_epoch : int
        Cells drawn per epoch, with replacement and class balance.
    batch_size : int
    learning_rate : float
        Peak of the one-cycle schedule (Smith and Topin 2019).
    weight_decay : float
    label_smoothing : float
    noisy : tuple of str
        Data sets whose labels are partly wrong: their cells get a loss that gives up on labels which the
        other cells speak against (generalised cross-entropy, Zhang and Sabuncu 2018).
    averaging : float
        Decay of the exponential moving average of the weights, per step.
    seed : int
    device : str
    """

    architecture: str = "compact_resnet"
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: int = 50
    cells_per_epoch: int = 4096
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    noisy: tuple[str, ...] = ()
    averaging: float = 0.99
    seed: int = 0
    device: str = "auto"


def wide_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """Preprocessing for training crops: the same cell at the same scale, with a margin around."""
    return replace(
        preprocessing,
        size=round(preprocessing.size * MARGIN),
        context=preprocessing.context * MARGIN,
    )


def train(
    name: str,
    cells: LabelledCells,
    validation: LabelledCells,
    output: Path,
    settings: Settings,
    report: Callable[[dict[str, float]], None] = lambda _row: None,
) -> Bundle:
    """Train, keep the best epoch, calibrate and write a bundle.

    Parameters
    ----------
    name : str
        Of the model.
    cells : LabelledCells
        Training cells, prepared with `wide_preprocessing`; every class must be there.
    validation : LabelledCells
        Cells to choose the epoch and to calibrate on, prepared with ``settings.preprocessing``.
    output : Path
        Directory; gets ``history.csv``, ``history.png``, ``best.safetensors`` and ``bundle/``.
    settings : Settings
    report : callable
        Called after each epoch with its row of the history.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If a class has no training or no validation cell, or both share a file.
    """
    _check(cells, validation, settings)
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    network = build_network(settings.architecture, len(CLASSES), settings.arguments)
    network = network.to(device).to(memory_format=torch.channels_last)
    best, history = _fit(network, cells, validation, output, settings, report)
    network.load_state_dict(best)

    precision = choose_precision("auto", device)
    backend = TorchBackend(copy.deepcopy(network), device, precision)
    logits, known = backend.run(validation.crops)
    trained_on = _centre(cells.crops, settings.preprocessing.size)
    novelty = fit_novelty(backend.run(trained_on)[1], cells.labels, known)
    bundle = Bundle(
        name=name,
        architecture=settings.architecture,
        arguments=all_arguments(settings.architecture, settings.arguments),
        classes=CLASSES,
        preprocessing=settings.preprocessing,
        temperature=fit_temperature(logits, validation.labels),
        novelty_scale=novelty.scale,
        rejection=Rejection(),
        training={
            "cells": cells.counts(),
            "digest": cells.digest,
            "validation_cells": validation.counts(),
            "validation_digest": validation.digest,
            "settings": asdict(settings),
            "best_epoch": history.best_epoch,
        },
    )
    card = f"# {name}\n\nTrained, not yet evaluated: `wbc-batch evaluate` writes this card.\n"
    return write_bundle(output / "bundle", bundle, best, novelty, card)


def _check(cells: LabelledCells, validation: LabelledCells, settings: Settings) -> None:
    unknown = sorted(set(settings.noisy) - set(cells.names))
    if unknown:
        raise InputError(
            f"there is no training data set {unknown[0]!r} to call noisy; "
            f"there are {', '.join(sorted(set(cells.names)))}"
        )
    for kind, part in (("training", cells), ("validation", validation)):
        missing = [c for k, c in enumerate(CLASSES) if not (part.labels == k).any()]
        if missing:
            raise InputError(f"there are no {kind} cells of {', '.join(missing)}; add some")
    shared = set(zip(cells.names, cells.members, strict=True)) & set(
        zip(validation.names, validation.members, strict=True)
    )
    if shared:
        dataset, member = min(shared)
        raise InputError(
            f"{len(shared)} cells are both training and validation cells, such as {member} of "
            f"{dataset}; keep them apart"
        )


def _fit(
    network: CompactResNet,
    cells: LabelledCells,
    validation: LabelledCells,
    output: Path,
    settings: Settings,
    report: Callable[[dict[str, float]], None],
) -> tuple[dict[str, Tensor], History]:
    device = next(network.parameters()).device
    average = copy.deepcopy(network)
    steps = settings.cells_per_epoch // settings.batch_size
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.08
    )
    precision = choose_precision("auto", device)
    dtype = PRECISIONS["bf16" if precision == "fp16" else precision]
    history = History(output)
    best: dict[str, Tensor] = {}
    for epoch in range(settings.epochs):
        network.train()
        total = 0.0
        for pixels, labels, noisy in _batches(cells, settings, epoch):
            images = pixels.to(device).permute(0, 3, 1, 2).float().div_(255.0)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = network(images)
            step_loss = training_loss(
                logits.float(), labels.to(device), noisy.to(device), settings.label_smoothing
            )
            optimiser.zero_grad()
            step_loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            _average(average, network, settings.averaging)
            total += step_loss.item()
        backend = TorchBackend(copy.deepcopy(average), device, precision)
        predicted = backend.run(validation.crops)[0].argmax(axis=1)
        row = _row(epoch, total / steps, predicted, validation)
        if history.add(row):
            best = {
                k: v.cpu().clone(memory_format=torch.contiguous_format)
                for k, v in average.state_dict().items()
            }
            save_file(best, output / CHECKPOINT)
        report(row)
    history.plot()
    return best, history


def _row(
    epoch: int, loss: float, predicted: NDArray[np.intp], validation: LabelledCells
) -> dict[str, float]:
    correct = predicted == validation.labels
    recalls = [correct[validation.labels == k].mean() for k in range(len(CLASSES))]
    names = np.array(validation.names)
    per_dataset = {
        f"accuracy_{name}": float(correct[names == name].mean()) for name in np.unique(names)
    }
    return {
        "epoch": epoch,
        "loss": loss,
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        **per_dataset,
    }


def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)


def _batches(
    cells: LabelledCells, settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of an epoch (pixels, labels, whether noisy), varied while others are computed.

    Each cell's variation hangs on seed, epoch and place alone, not on the threads' timing.
    """
    rng = np.random.default_rng((settings.seed, epoch))
    chosen = rng.choice(len(cells), settings.cells_per_epoch, p=sampling_weights(cells))
    size = settings.preprocessing.size
    noisy = np.isin(cells.names, settings.noisy)

    def make(start: int) -> tuple[Tensor, Tensor, Tensor]:
        places = range(start, start + settings.batch_size)
        varied = [
            augment(
                cells.crops[chosen[place]],
                size,
                settings.augmentation,
                np.random.default_rng((settings.seed, epoch, place)),
            )
            for place in places
        ]
        drawn = chosen[start : start + settings.batch_size]
        pixels = torch.from_numpy(np.stack(varied))
        return pixels, torch.from_numpy(cells.labels[drawn]), torch.from_numpy(noisy[drawn])

    starts = range(0, len(chosen) - settings.batch_size + 1, settings.batch_size)
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[tuple[Tensor, Tensor, Tensor]]] = []
        for start in starts:
            waiting.append(pool.submit(make, start))
            if len(waiting) > 4:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _centre(crops: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the margin off training crops."""
    edge = (crops.shape[1] - size) // 2
    return np.ascontiguousarray(crops[:, edge : edge + size, edge : edge + size])
