"""How fast cells are read, without anything done with them."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.reading import Read, readers, run_ahead

__all__ = ["attempt_read", "reading_rate"]

_AHEAD = 64


def attempt_read(read: Read) -> NDArray[np.uint8] | ImageError:
    """Read a cell; what goes wrong is returned."""
    try:
        return read()
    except ImageError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one picture that no rule foresaw spoils no other
        return ImageError(f"the image cannot be read ({type(error).__name__})")


def reading_rate(cells: Sequence[Cell], threads: int, base: Path | None = None) -> float:
    """Measure how many cells a second are read and decoded, from opening the containers on.

    Parameters
    ----------
    cells : sequence of Cell
        At least one.
    threads : int
    base : Path, optional
        The folder that relative sources start from.

    Returns
    -------
    float
        Cells per second.
    """
    started = time.perf_counter()
    for _ in run_ahead(attempt_read, readers(cells, base), threads, _AHEAD):
        pass
    return len(cells) / (time.perf_counter() - started)
