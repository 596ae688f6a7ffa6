"""What a run would be: cells, groups, shards, workers, memory. Nothing is started or written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.backend import choose_backend
from wbc_batch.engine.cluster_file import read_cluster_file
from wbc_batch.engine.clusters import expected_workers
from wbc_batch.engine.connection import connected
from wbc_batch.engine.crew import Crew, choose_crew
from wbc_batch.engine.plan import Job, model_digest, shard_size
from wbc_batch.engine.preflight import gpu_workers, memory_limits
from wbc_batch.engine.trial import try_out
from wbc_batch.report.groups import AS_LISTED
from wbc_batch.request import refuse_unfit_model
from wbc_batch.sources import AnyInput, Cell, list_cells

__all__ = ["RunPlan", "plan_run"]

# Classified for a trial: some batches.
_TRIAL_CELLS = 256
# Seconds to wait for an answer of a running cluster.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would be.

    Attributes
    ----------
    cells : int
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
        That workers of this machine would take, reckoned from the same trial.
    """

    cells: int
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


def plan_run(
    inputs: AnyInput | Sequence[AnyInput],
    *,
    model: str | Path = "default",
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    group_by: str | None = None,
    workers: int | None = None,
    memory_limit: str | None = None,
    scheduler: str | None = None,
    scheduler_file: str | Path | None = None,
    cluster: str | Path | None = None,
) -> RunPlan:
    """Look at what `wbc_batch.classify_paths` would do with the same arguments.

    A running cluster is asked for its workers; a cluster that would be started is not. One process
    on this machine classifies the first cells and keeps nothing, so a script that calls this needs
    the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    inputs, model, device, precision, backend, group_by
    workers, memory_limit, scheduler, scheduler_file, cluster
        See `wbc_batch.classify_paths`.

    Raises
    ------
    InputError
        If an input or option cannot be used.
    ModelError, ClusterError
        If the model or a running cluster cannot be used.
    """
    paths = [inputs] if isinstance(inputs, AnyInput) else list(inputs)
    crew = choose_crew(device, workers, memory_limit, scheduler, scheduler_file, cluster)
    bundle = read_bundle(model)
    refuse_unfit_model(bundle, device, precision, backend, crew)
    groups: Counter[str] = Counter()
    firsts: list[Cell] = []
    for cell in list_cells(paths, group_by):
        groups[AS_LISTED.rule(cell.source, cell.member, cell.group)] += 1
        if len(firsts) < _TRIAL_CELLS:
            firsts.append(cell)
    cells = groups.total()
    crew = crew.for_cells(cells)
    staff = _staff(crew, device)
    trial = try_out(
        Job(
            model=str(bundle.path),
            model_digest=model_digest(bundle),
            # Workers elsewhere may have what this machine lacks.
            device=device if crew.local else "auto",
            precision=precision if crew.local else "auto",
            backend=choose_backend(backend),
            threads=staff.threads or 1,
            base=str(Path.cwd()),
            shards="",
        ),
        firsts,
    )
    size = shard_size(cells, staff.workers or 1)
    return RunPlan(
        cells=cells,
        groups=dict(groups),
        model=bundle.name,
        place=crew.place,
        workers=staff.workers,
        threads_per_worker=staff.threads,
        shards=-(-cells // size),
        shard_cells=size,
        memory_limit=staff.memory_limit,
        worker_memory=trial.memory if trial else None,
        seconds=cells / (trial.cells_per_second * crew.workers) if trial and crew.local else None,
    )


def _staff(crew: Crew, device: str) -> _Staff:
    if crew.local:
        return _Staff(crew.workers, crew.threads, crew.memory)
    if crew.cluster is not None:
        return _Staff(read_cluster_file(crew.cluster).workers, None, None)
    with crew.open(_PATIENCE) as client, connected():
        return _Staff(
            workers=gpu_workers(client, device) or expected_workers(client),
            threads=min(client.nthreads().values(), default=None),
            memory_limit=min(memory_limits(client), default=None),
        )
