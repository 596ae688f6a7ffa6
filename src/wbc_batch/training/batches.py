"""Training cells as batches: drawn with balance, varied, the same for the same seed."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.schema import DRAWN
from wbc_batch.training.augmentation import augment
from wbc_batch.training.settings import Settings

__all__ = ["MARGIN", "centre", "sampling_weights", "training_batches", "wide_preprocessing"]

#: Training crops are this much wider than what the network sees, so that they can be turned and shifted.
MARGIN = 1.4

# Power of a kind's size by which it counts in its class: 1 as it comes, 0 all kinds alike.
_EVENNESS = 0.5


def wide_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """Preprocessing for training crops: the same cell at the same scale, with a margin around."""
    return replace(preprocessing, size=round(preprocessing.size * MARGIN), margin=MARGIN)


def training_batches(
    cells: LabelledCells, settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Make the batches of an epoch, varied while others are computed.

    Each cell's variation hangs on seed, epoch and place alone, not on the threads' timing.

    Parameters
    ----------
    cells : LabelledCells
        Prepared with `wide_preprocessing`.
    settings : Settings
    epoch : int
        From 0.

    Yields
    ------
    pixels : Tensor of uint8, shape (batch, S, S, 3)
    labels : Tensor of int64, shape (batch,)
    noisy : Tensor of bool, shape (batch,)
        Cells of data sets whose labels are partly wrong.
    """
    rng = np.random.default_rng((settings.seed, epoch))
    chosen = rng.choice(len(cells), settings.cells_per_epoch, p=_weights(cells, settings))
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


def _weights(cells: LabelledCells, settings: Settings) -> NDArray[np.float64]:
    """Give replayed data sets half of the draws of each class that has others, drawn cells their share."""
    weights = sampling_weights(cells)
    for names, share in ((settings.replayed, 0.5), ((DRAWN,), settings.drawn_share)):
        chosen = np.isin(cells.names, names)
        for label in np.unique(cells.labels):
            own = cells.labels == label
            total = weights[own].sum()
            parts = ((own & chosen, share), (own & ~chosen, 1.0 - share))
            if all(part.any() for part, _ in parts):
                for part, fraction in parts:
                    weights[part] *= fraction * total / weights[part].sum()
    return weights


def sampling_weights(cells: LabelledCells) -> NDArray[np.float64]:
    """How often each cell is drawn in training: classes equally, kinds within a class more evenly.

    A kind is what a data set's file names tell by their leading letters, such as the band (``BNE_``) and
    segmented (``SNE_``) neutrophils of PBC. Within a class each kind counts by the square root of its size,
    so that many band cells do not make "neutrophil" mean "band".

    Returns
    -------
    ndarray of float64, shape (N,)
        Sums to 1.
    """
    kinds = [
        (name, label, re.sub("[^A-Za-z].*", "", PurePosixPath(member).name))
        for name, member, label in zip(
            cells.names, cells.members, cells.labels.tolist(), strict=True
        )
    ]
    size = Counter(kinds)
    total: defaultdict[int, float] = defaultdict(float)
    for kind, count in size.items():
        total[kind[1]] += count**_EVENNESS
    weights = np.array([size[kind] ** (_EVENNESS - 1) / total[kind[1]] for kind in kinds])
    return weights / weights.sum()


def centre(crops: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cut the margin off training crops: (N, C, C, 3) to (N, size, size, 3)."""
    edge = (crops.shape[1] - size) // 2
    return np.ascontiguousarray(crops[:, edge : edge + size, edge : edge + size])
