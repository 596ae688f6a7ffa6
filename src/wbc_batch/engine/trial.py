"""A trial: one process classifies a few cells, to see what a worker needs and how fast it is."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection

import psutil

from wbc_batch.engine.plan import Job, plan_shards
from wbc_batch.engine.starting import deaf
from wbc_batch.engine.work import attempt, run_shard
from wbc_batch.files import scratch
from wbc_batch.sources import Cell

__all__ = ["Trial", "try_out"]

_TICK = 0.5  # seconds; a short wait lets Ctrl-C through on every system


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
    spawn = get_context("spawn")
    answers, answer = spawn.Pipe(duplex=False)
    with scratch() as place, closing(answers), closing(answer):
        task = (_classify_twice, replace(job, shards=place), tuple(cells))
        process = spawn.Process(target=_serve, args=(answer, *task))
        with deaf():
            process.start()
        answer.close()  # so that the pipe ends with the process
        try:
            while not answers.poll(_TICK):
                pass
            outcome: Trial | Exception = answers.recv()
        except EOFError:
            return None
        finally:
            process.kill()
            process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _serve(
    answer: Connection,
    function: Callable[[Job, tuple[Cell, ...]], Trial],
    job: Job,
    cells: tuple[Cell, ...],
) -> None:
    try:
        answer.send(attempt(version("wbc-napari"), function, job, cells))
    except Exception as error:  # noqa: BLE001 - whoever asked raises it
        answer.send(error)


def _classify_twice(job: Job, cells: tuple[Cell, ...]) -> Trial:
    (spec,) = plan_shards(cells, job, len(cells))
    run_shard(spec)  # loads and warms up
    seconds = run_shard(spec).seconds
    return Trial(psutil.Process().memory_info().rss, len(cells) / max(seconds, 1e-3))
