"""The epochs of a training."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.devices import PRECISIONS, choose_precision
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.errors import RunError
from wbc_batch.schema import CLASSES
from wbc_batch.training.batches import training_batches
from wbc_batch.training.checkpoint import State, restore, save
from wbc_batch.training.history import History
from wbc_batch.training.mixup import random_blend
from wbc_batch.training.settings import Settings
from wbc_batch.training.start import trained_parameters

__all__ = ["SILENT", "Report", "Shown", "Step", "fit", "training_precision"]

#: Called after each epoch with its row of the history.
Report = Callable[[dict[str, float]], None]
#: Called after each batch with the epoch and the batch, both from 1, and the mean loss of the epoch so far.
Step = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Shown:
    """What a training calls.

    Attributes
    ----------
    report : callable
        After each epoch, with its row of the history.
    step : callable
        After each batch, with epoch, batch and the epoch's mean loss.
    """

    report: Report = lambda _row: None
    step: Step = lambda _epoch, _batch, _loss: None


SILENT = Shown()

# Depthwise convolutions are 1.5 to 2 times as fast in fp32 on a CPU with bf16.
_GAIN_ON_CPU = {"compact_resnet"}
_OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}

_log = logging.getLogger(__name__)


def fit(
    network: Network,
    cells: LabelledCells,
    validation: LabelledCells,
    output: Path,
    settings: Settings,
    shown: Shown,
) -> tuple[dict[str, Tensor], History]:
    """Train until the epochs are over or patience is, from the last checkpoint if there is one.

    Parameters
    ----------
    network : Network
        As the training starts; trained in place.
    cells, validation : LabelledCells
    output : Path
        Directory; gets ``history.csv``, ``history.png`` and, after each epoch, ``checkpoint.pt``.
    settings : Settings
    shown : Shown

    Returns
    -------
    weights : dict of str to Tensor
        Those of the epoch that is kept, averaged over the steps, on the CPU.
    history : History

    Raises
    ------
    RunError
        If the training diverges: nothing of that epoch is kept.
    """
    state = _start(network, output, settings)
    if restore(state, output):
        _log.info("continuing after epoch %d of %d", len(state.history), settings.epochs)
    while not _is_over(state.history, settings):
        loss = _train_epoch(state, cells, settings, shown.step)
        logits = _logits(state.average, validation)
        if not np.isfinite(logits).all():  # the last steps, whose loss nobody computes
            raise _diverged(len(state.history) + 1, settings)
        row = _row(len(state.history) + 1, loss, logits.argmax(axis=1), validation)
        if state.history.add(row):
            state.best = {
                k: v.cpu().clone(memory_format=torch.contiguous_format)
                for k, v in state.average.state_dict().items()
            }
        save(state, output)
        state.history.write()
        shown.report(row)
    state.history.plot()
    return state.best, state.history


def training_precision(architecture: str, device: torch.device) -> torch.dtype:
    """Precision of the forward pass: what the device computes fast, where the network gains by it."""
    if device.type == "cpu" and architecture not in _GAIN_ON_CPU:
        return torch.float32
    return PRECISIONS[choose_precision("auto", device)]


def _start(network: Network, output: Path, settings: Settings) -> State:
    device = next(network.parameters()).device
    body, head = trained_parameters(network, settings.freeze)
    rates = {"body": settings.learning_rate, "head": settings.learning_rate * settings.head_factor}
    groups = [
        {"params": parameters, "lr": rates[part]}
        for part, parameters in (("body", body), ("head", head))
        if parameters
    ]
    optimiser = _OPTIMISERS[settings.optimiser](groups, weight_decay=settings.weight_decay)
    half = training_precision(settings.architecture, device) == torch.float16
    return State(
        network=network,
        average=copy.deepcopy(network),
        optimiser=optimiser,
        schedule=_schedule(optimiser, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=half),
        history=History(output, settings.keep),
    )


def _schedule(optimiser: torch.optim.Optimizer, settings: Settings) -> LRScheduler:
    if settings.schedule == "constant":
        return ConstantLR(optimiser, factor=1.0)
    steps = settings.batches * settings.epochs
    # A rise of exactly one step has no length, and torch divides by that.
    rising = settings.warm_up if settings.warm_up * steps != 1.0 else 1.5 / steps
    return OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=steps,
        pct_start=rising,
    )


def _is_over(history: History, settings: Settings) -> bool:
    patience_over = 0 < settings.patience <= history.without_gain
    return len(history) >= settings.epochs or patience_over


def _train_epoch(state: State, cells: LabelledCells, settings: Settings, step: Step) -> float:
    device = next(state.network.parameters()).device
    dtype = training_precision(settings.architecture, device)
    epoch = len(state.history)
    _to_training(state.network, settings.frozen_statistics)
    total = 0.0
    for number, (pixels, labels, noisy) in enumerate(training_batches(cells, settings, epoch), 1):
        images = pixels.to(device).permute(0, 3, 1, 2).float().div_(255.0)
        blend = random_blend(len(images), settings.mixup, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = state.network(blend.of(images))
        given = labels.to(device), noisy.to(device)
        loss = blend.loss(logits.float(), *given, settings.label_smoothing)
        total += loss.item()
        if not math.isfinite(total):
            raise _diverged(epoch + 1, settings)
        _descend(state, loss)
        _average(state.average, state.network, settings.averaging)
        step(epoch + 1, number, total / number)
    return total / settings.batches


def _to_training(network: nn.Module, frozen_statistics: bool) -> None:
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm) and frozen_statistics:
            module.eval()


def _descend(state: State, loss: Tensor) -> None:
    state.optimiser.zero_grad()
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimiser)
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.schedule.step()


def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1.0 - decay)
        for kept, statistic in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(statistic)


def _diverged(epoch: int, settings: Settings) -> RunError:
    return RunError(
        f"the training diverged: in epoch {epoch} its results are no longer finite numbers; give a smaller "
        f"--learning-rate than {settings.learning_rate:g}, and add --force to start over"
    )


def _logits(average: Network, validation: LabelledCells) -> NDArray[np.float32]:
    device = next(average.parameters()).device
    backend = TorchBackend(copy.deepcopy(average), device, choose_precision("auto", device))
    return backend.run(validation.crops)[0]


def _row(
    epoch: int, loss: float, predicted: NDArray[np.intp], validation: LabelledCells
) -> dict[str, float]:
    correct = predicted == validation.labels
    there = [k for k in range(len(CLASSES)) if (validation.labels == k).any()]
    recalls = [correct[validation.labels == k].mean() for k in there]
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
