"""The reviewed cells that neither model learns from, so that both can be compared on them."""

import threading
from collections import Counter
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError
from wbc_napari.crops import Crops

__all__ = ["held_out"]

#: Part of the cells of each class that is held out.
_SHARE = 0.25


def held_out(
    crops: Crops,
    rows: NDArray[np.intp],
    labels: NDArray[np.object_],
    names: NDArray[np.object_],
    stop: threading.Event,
) -> NDArray[np.bool_]:
    """Choose cells to compare on; copies of one picture stay on one side.

    Which are chosen depends on their names and pixels alone, so that going on changes nothing.

    Parameters
    ----------
    crops : Crops
        Of the whole table.
    rows : ndarray of int, shape (N,)
        Of the reviewed cells.
    labels, names : ndarray of str, shape (N,)
        What the reviewer said of them, and their ids.
    stop : Event
        Set it to end early; what is chosen then is of no use.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    missing = Counter({k: int(_SHARE * n) for k, n in Counter(labels.tolist()).items()})
    held = np.zeros(len(rows), bool)
    found = _copies(crops, rows, stop)
    # As wbc_batch.datasets.held_out chooses what to validate on, which the plugin may not import.
    for copies in sorted(found, key=lambda copies: min(map(str, names[copies]))):
        counts = Counter(labels[copies].tolist())
        wanted = sum(min(count, missing[label]) for label, count in counts.items())
        if wanted > 0 and 2 * wanted >= len(copies):
            held[copies] = True
            missing -= counts  # keeps what is above zero
    return held


def _copies(crops: Crops, rows: NDArray[np.intp], stop: threading.Event) -> list[list[int]]:
    """Put the places of equal pictures together; one that cannot be read is alone."""
    found: dict[bytes | int, list[int]] = {}
    place = 0
    for batch in crops.batches(rows):
        if stop.is_set():
            break
        for image in crops.read(batch):
            found.setdefault(_digest(image) or place, []).append(place)
            place += 1
    return list(found.values())


def _digest(image: NDArray | ImageError) -> bytes:
    """Name the pixels that are learned from; nothing where there are none."""
    try:
        rgb = as_rgb(image) if not isinstance(image, ImageError) else None
    except ImageError:
        rgb = None
    return b"" if rgb is None else sha256(f"{rgb.shape}".encode() + rgb.tobytes()).digest()
