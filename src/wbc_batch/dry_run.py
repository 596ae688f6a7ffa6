"""What a run would be: cells, groups, shards, workers, memory.

No worker is started and nothing is written; a process tries the first cells.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from wbc_batch.engine.capacity import expected_workers, gpu_workers, memory_limits
from wbc_batch.engine.cluster_file import read_cluster_file
from wbc_batch.engine.clusters import existing_workers
from wbc_batch.engine.connection import connected
from wbc_batch.engine.crew import Crew
from wbc_batch.engine.plan import shard_size
from wbc_batch.engine.run_folder import refuse_unfit_folder, to_continue
from wbc_batch.engine.trial import try_out
from wbc_batch.files import writing
from wbc_batch.ledger import committed
from wbc_batch.request import Request, group_of, refuse_overlap
from wbc_batch.sources import list_cells

__all__ = ["RunPlan", "plan_run"]

# Classified for a trial: some batches.
_TRIAL_CELLS = 256


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would be.

    Attributes
    ----------
    cells : int
    done : int
        Of them, by the run that the folder of the results holds a part of.
    groups : dict of str to int
        Cells per group of the report, in the order in which groups begin.
    model : str
        Its name.
    place : str
        Where the workers are, in words.
    workers : int or None
        Processes, or GPUs; None if that is known only when they have started.
    threads_per_worker : int or None
        Cores for each.
    shards, shard_cells : int
        How many, and how many cells in each but the last. With an unknown number of workers, the
        fewest and largest.
    memory_limit : int or None
        Of each worker, bytes; None if it has none or that is not known.
    worker_memory : int or None
        That a worker here needed for the first cells, bytes; None if it died of them.
    seconds : float or None
        That workers of this machine would take for the rest, reckoned from the same trial.
    """

    cells: int
    done: int
    groups: dict[str, int]
    model: str
    place: str
    workers: int | None
    threads_per_worker: int | None
    shards: int
    shard_cells: int
    memory_limit: int | None
    worker_memory: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Staff:
    workers: int | None
    threads: int | None
    memory_limit: int | None


def plan_run(request: Request, run_dir: Path | None = None, force: bool = False) -> RunPlan:
    """Look at what a run would do.

    A running cluster is asked for its workers; a cluster that would be started is not. One process
    on this machine classifies the first cells and keeps nothing, so a script that calls this needs
    the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    request : Request
    run_dir : Path, optional
        The folder of the results, which may hold a part of the run.
    force : bool
        Look away from the run that it holds.

    Raises
    ------
    RunError
        If the folder cannot be used, or holds another run.
    InputError, ClusterError
        If the results would lie inside the input, or a running cluster cannot be used.
    """
    done, size = _begun(request, run_dir, force) if run_dir else (0, None)
    crew, cells = request.crew, request.listing.cells
    groups = Counter(map(group_of, list_cells(request.inputs, request.group_by)))
    staff = _staff(crew, request.device)
    job = request.job(run_dir or Path(), staff.threads or 1)
    if not crew.local:  # workers elsewhere may have what this machine lacks
        job = replace(job, device="auto", precision="auto")
    firsts = islice(list_cells(request.inputs, request.group_by), _TRIAL_CELLS)
    trial = try_out(job, list(firsts))
    size = size or shard_size(cells, staff.workers or 1)
    rest = cells - done
    return RunPlan(
        cells=cells,
        done=done,
        groups=dict(groups),
        model=request.bundle.name,
        place=crew.place,
        workers=staff.workers,
        threads_per_worker=staff.threads,
        shards=-(-cells // size),
        shard_cells=size,
        memory_limit=staff.memory_limit,
        worker_memory=trial.memory if trial else None,
        seconds=rest / (trial.cells_per_second * crew.workers) if trial and crew.local else None,
    )


def _begun(request: Request, run_dir: Path, force: bool) -> tuple[int, int | None]:
    """Count the cells that the run in a folder has done, and tell how many its shards have."""
    refuse_overlap(request.inputs, run_dir)
    with writing(run_dir):
        if run_dir.exists():
            refuse_unfit_folder(run_dir)
        record = None if force else to_continue(run_dir, request.settings())
    if record is None:
        return 0, None
    return sum(result.cells for result in committed(run_dir)), record.get("shard_cells")


def _staff(crew: Crew, device: str) -> _Staff:
    if crew.local:
        return _Staff(crew.workers, crew.threads, crew.memory)
    if crew.cluster is not None:
        return _Staff(read_cluster_file(crew.cluster).workers, None, None)
    with existing_workers(crew.scheduler, crew.scheduler_file) as client, connected():
        return _Staff(
            workers=gpu_workers(client, device) or expected_workers(client),
            threads=min(client.nthreads().values(), default=None),
            memory_limit=min(memory_limits(client), default=None),
        )
