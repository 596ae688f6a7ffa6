"""A trial: one process classifies a few cells, to see what a worker needs and how fast it is."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import psutil

from wbc_batch.engine.plan import Job, plan_shards
from wbc_batch.engine.work import run_shard
from wbc_batch.sources import Cell

__all__ = ["Trial", "try_out"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a process took that classified some cells.

    Attributes
    ----------
    memory : int
        Resident, bytes, after the work: Python, torch, the model, its batches, cells decoded ahead.
    cells_per_second : float
        Without starting and loading the model.
    """

    memory: int
    cells_per_second: float


def try_out(job: Job, cells: Sequence[Cell]) -> Trial | None:
    """Classify some cells in a process of its own, and keep nothing.

    Parameters
    ----------
    job : Job
        The place for its results is not used.
    cells : sequence of Cell
        Some hundreds.

    Returns
    -------
    Trial or None
        None if the process died: an image may have killed it, or want of memory.

    Raises
    ------
    ModelError
        If the model cannot be used.
    """
    with (
        TemporaryDirectory(prefix="wbc-batch-") as place,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        try:
            return pool.submit(_classify_twice, replace(job, shards=place), tuple(cells)).result()
        except BrokenProcessPool:
            return None


def _classify_twice(job: Job, cells: tuple[Cell, ...]) -> Trial:
    (spec,) = plan_shards(cells, job, len(cells))
    run_shard(spec)  # loads and warms up
    seconds = run_shard(spec).seconds
    return Trial(psutil.Process().memory_info().rss, len(cells) / max(seconds, 1e-3))
