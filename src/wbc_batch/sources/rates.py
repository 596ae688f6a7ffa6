"""How fast cells are read, without anything done with them."""

import time
from collections.abc import Iterable

from wbc_batch.sources.reading import Read, attempt_read, run_ahead

__all__ = ["reading_rate"]

_AHEAD = 64


def reading_rate(reads: Iterable[Read], threads: int) -> float:
    """Measure how many cells a second are read, from opening their containers on.

    Parameters
    ----------
    reads : iterable of Read
        At least one, not asked for before, such as of `wbc_batch.sources.readers`.
    threads : int

    Returns
    -------
    float
        Cells per second.
    """
    started = time.perf_counter()
    count = sum(1 for _ in run_ahead(attempt_read, reads, threads, _AHEAD))
    return count / (time.perf_counter() - started)
