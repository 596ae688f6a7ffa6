"""Which workers a run gets: chosen from what was asked for, before any of them starts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.devices import choose_device
from wbc_batch.classifier.runtime import choose_runtime
from wbc_batch.engine import clusters
from wbc_batch.engine.capacity import expected_workers, gpu_workers
from wbc_batch.engine.cluster_file import read_cluster_file
from wbc_batch.engine.connection import connected
from wbc_batch.engine.machine import cores, default_workers, memory_of_workers
from wbc_batch.engine.plan import MIN_SHARD, Job
from wbc_batch.engine.preflight import check_workers
from wbc_batch.errors import InputError
from wbc_batch.sources import Cell

__all__ = ["Crew", "Mustered", "choose_crew"]


@dataclass(frozen=True, slots=True)
class Mustered:
    """What is known of workers when they have come.

    Attributes
    ----------
    workers : int
        That run a shard at a time each: processes, those included that are still to come, or GPUs.
    threads : int
        Cores for each.
    on_gpu : bool
        Whether those with a GPU are used only.
    precision : str
        That all compute in.
    """

    workers: int
    threads: int
    on_gpu: bool
    precision: str


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that a run can be given.

    Attributes
    ----------
    place : str
        Where they are, in words.
    workers, threads, memory : int
        On this machine: processes, cores for each, bytes for each. Elsewhere 0, until asked.
    chosen : bool
        Whether the number of workers was asked for, so that it stays.
    scheduler : str or None
        Address of a running Dask scheduler.
    scheduler_file : Path or None
        The file that a running Dask scheduler wrote.
    cluster : Path or None
        The file that describes a cluster to start.
    """

    place: str
    workers: int = 0
    threads: int = 0
    memory: int = 0
    chosen: bool = False
    scheduler: str | None = None
    scheduler_file: Path | None = None
    cluster: Path | None = None

    @property
    def local(self) -> bool:
        """Whether the workers are processes that we start on this machine by ourselves."""
        return self.workers > 0

    def for_cells(self, cells: int) -> "Crew":
        """Leave out workers of this machine that would find nothing to do, unless asked for."""
        if not self.local or self.chosen:
            return self
        return replace(self, workers=min(self.workers, -(-cells // MIN_SHARD)))

    def open(self, timeout: float) -> AbstractContextManager[Client]:
        """Start the workers or connect to them.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the first worker of a cluster that we start.

        Returns
        -------
        context manager of distributed.Client
            See `wbc_batch.engine.clusters` for what it raises.
        """
        if self.cluster is not None:
            return clusters.started_workers(self.cluster, timeout)
        if self.local:
            return clusters.local_workers(self.workers, self.threads, self.memory)
        return clusters.existing_workers(self.scheduler, self.scheduler_file)

    def muster(
        self, client: Client, job: Job, samples: Sequence[Cell], timeout: float
    ) -> "Mustered":
        """Look at the workers that have come, and check those that we did not start by ourselves.

        Parameters
        ----------
        client : distributed.Client
        job : Job
        samples : sequence of Cell
            One from each part of the input.
        timeout : float
            Seconds for them to answer.

        Returns
        -------
        Mustered

        Raises
        ------
        InputError
            If this machine cannot do its part.
        ClusterError
            If a worker elsewhere does not fit.
        IncompleteRunError
            If the scheduler is lost, or a worker does not answer in time.
        """
        if self.local:
            runtime = choose_runtime(read_bundle(job.model), job.device, job.precision, job.backend)
            return Mustered(self.workers, self.threads, False, runtime.precision)
        with connected():
            threads, precision = check_workers(client, job, samples, timeout)
            gpus = gpu_workers(client, job.device)
            there = expected_workers(client)
        meant = (self.cluster and read_cluster_file(self.cluster).workers) or 0
        return Mustered(gpus or max(meant, there), threads, gpus > 0, precision)


def choose_crew(
    device: str = "auto",
    workers: int | None = None,
    memory_limit: str | None = None,
    scheduler: str | None = None,
    scheduler_file: str | Path | None = None,
    cluster: str | Path | None = None,
) -> Crew:
    """Choose workers; at most one of the last three, and nothing of the two before it with them.

    Parameters
    ----------
    device : str
        As `wbc_batch.Classifier.load` takes it.
    workers : int, optional
        Processes on this machine. Default: one for each core that has a GiB of memory, or one for the GPU.
    memory_limit : str, optional
        For each of them, such as ``2GiB``. Default: an equal share of the memory of this machine.
    scheduler : str, optional
        Address of a running Dask scheduler.
    scheduler_file : str or Path, optional
        The file that a running Dask scheduler wrote.
    cluster : str or Path, optional
        The file that describes a cluster to start (`wbc_batch.engine.cluster_file`).

    Raises
    ------
    InputError
        If that does not go together, or a value cannot be used.
    """
    given = {"scheduler": scheduler, "scheduler-file": scheduler_file, "cluster": cluster}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(
            f"--{named[0]} and --{named[1]} cannot be used together; choose one of them"
        )
    if named:
        if workers is not None or memory_limit is not None:
            raise InputError(
                "--workers and --memory-limit are for workers on this machine, and cannot be used "
                f"together with --{named[0]}"
            )
        if cluster is not None:
            name = read_cluster_file(Path(cluster)).name
            return Crew(f"{name} started from {cluster}", cluster=Path(cluster))
        file = None if scheduler_file is None else Path(scheduler_file)
        place = f"the Dask scheduler {scheduler or f'in {file}'}"
        return Crew(place, scheduler=scheduler, scheduler_file=file)
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers are too few; ask for at least one")
    count = workers or default_workers(choose_device(device).type)
    return Crew(
        "this machine",
        workers=count,
        threads=max(cores() // count, 1),
        memory=memory_of_workers(memory_limit, count),
        chosen=workers is not None,
    )
