"""Dask workers: of our own on this machine, of a cluster that we start, or somebody else's."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.utils import format_bytes
from distributed import Client, LocalCluster
from distributed.core import Status

from wbc_batch.engine.cluster_file import ClusterDescription, read_cluster_file
from wbc_batch.engine.connection import connected
from wbc_batch.engine.plan import SHARDS_AT_ONCE
from wbc_batch.engine.starting import OverdueError, apart, connect, quiet, restored, short
from wbc_batch.errors import ClusterError, IncompleteRunError
from wbc_batch.files import scratch
from wbc_batch.paths import absence, is_file

__all__ = [
    "existing_workers",
    "local_workers",
    "started_workers",
]

_TICK = 2.0  # seconds between looks at what goes wrong while workers start
_STARTS = 3  # of the workers of this machine, until it is believed that they do not start
_PATIENCE = 300.0  # seconds that each of these may take
_CLOSING = 60.0  # seconds that a cluster may take to close
_GIVING_UP = 10.0  # seconds that one may take that came up by half

_log = logging.getLogger(__name__)

_CONFIG = {
    "distributed.admin.large-graph-warning-threshold": "1 GiB",
    # Dask keeps the last thousand messages to each worker: of ours each holds a shard with all its cells.
    "distributed.admin.low-level-log-length": 0,
    "distributed.comm.retry.count": 3,
}

# For clusters that are ours. Workers read it from the process that starts them, or never.
_OUR_CONFIG = _CONFIG | {
    # None: a KubeCluster that finds a cluster of its name, and joins it, leaves it running in the end.
    "kubernetes.shutdown-on-close": None,
    # A death is ours to judge (see `wbc_batch.engine.execute`), at once.
    "distributed.scheduler.allowed-failures": 0,
    # Nobody looks at what a worker samples of its threads, a hundred times a second, beside its work.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    # No worker holds results for others, so there is nothing to spill; and one that is paused
    # because its own work is large would wait for ever. What takes too much is ended.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}

# Dask ends a worker's place for good if there is no worker in it when it looks, a while after a death:
# also one that came back, died again, and is about to come back. Only `adapt` fills such a place anew.
_KEPT_PLACES = {"distributed.deploy.lost-worker-timeout": "1000 days"}


@contextmanager
def local_workers(workers: int, threads: int, memory: int) -> Iterator[Client]:
    """Start worker processes on this machine, and stop them in the end.

    Parameters
    ----------
    workers : int
        Number of processes; each classifies one shard at a time.
    threads : int
        Cores that each may use.
    memory : int
        Bytes that each may use; one that takes more is ended.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If they do not start.
    """
    environment: dict[str, int | str] = {
        name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    environment |= {"MALLOC_TRIM_THRESHOLD_": 65536, "DASK_LOGGING__DISTRIBUTED": "critical"}
    config = _OUR_CONFIG | _KEPT_PLACES | {"distributed.nanny.pre-spawn-environ": environment}
    with (
        scratch() as place,
        dask.config.set(config),
        quiet(),
        restored(environment),
    ):
        cluster = _start_here(workers, memory, place)
        try:
            with connect(address=cluster) as client:
                yield client
        finally:
            _stop(cluster)


def _start_here(workers: int, memory: int, place: str) -> LocalCluster:
    """Start worker processes; one may die as it starts, as at any other time."""
    arguments = {
        "n_workers": workers,
        "threads_per_worker": SHARDS_AT_ONCE,
        "processes": True,
        "memory_limit": memory,
        "dashboard_address": None,
        "silence_logs": logging.CRITICAL,
        "local_directory": place,
        # Else whoever is on this machine could have them run anything.
        "security": True,
        # Else it takes port 8787 although there is no dashboard.
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
    }
    description = ClusterDescription("LocalCluster", LocalCluster, arguments)
    failure = Exception()
    for _ in range(_STARTS):
        try:
            return _start(description, _PATIENCE, _stop)
        except (OSError, RuntimeError) as error:
            failure = error
    raise ClusterError(
        f"the {workers} worker processes, with {format_bytes(memory)} each, did not start "
        f"({short(failure)}); try fewer with --workers, or more memory with --memory-limit"
    ) from failure


def _start(description: ClusterDescription, timeout: float, stop: Callable[[Any], object]) -> Any:
    """Start a cluster; one that comes up by half or too late, or is not wanted any more, is stopped."""
    begun: list[Any] = []
    try:
        return apart(partial(description.start, begun), timeout)
    except BaseException:
        for cluster in begun:
            stop(cluster)
        raise


def _stop(cluster: LocalCluster) -> None:
    # What workers did is committed, and what they did not finish is done anew: no need to ask.
    for nanny in list(getattr(cluster, "workers", {}).values()):
        nanny.auto_restart = False
        if pid := nanny.pid:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
    with suppress(Exception):  # such as a timeout; it must not undo a run that is done
        cluster.close(timeout=5)


@contextmanager
def existing_workers(
    address: str | None, scheduler_file: Path | None = None, timeout: float = 20.0
) -> Iterator[Client]:
    """Connect to a running Dask scheduler; its workers are left alone in the end.

    Parameters
    ----------
    address : str or None
        Such as ``tcp://10.0.0.1:8786``, or ``tls://...`` with the certificates that Dask's own
        configuration names (``distributed.comm.tls``).
    scheduler_file : Path, optional
        The file that the scheduler wrote its address to, instead of an address.
    timeout : float
        Seconds to wait for an answer, and for the first worker.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If nobody answers, or there are no workers.
    IncompleteRunError
        If the scheduler is lost meanwhile.
    """
    place = f"at {address}" if scheduler_file is None else f"given in {scheduler_file}"
    if scheduler_file is not None and not is_file(scheduler_file):
        missing = absence(scheduler_file, f"{scheduler_file}: there is no such file")
        raise ClusterError(f"{missing}; give the one that the Dask scheduler writes")
    named = {"address": address} if scheduler_file is None else {"scheduler_file": scheduler_file}
    with dask.config.set(_CONFIG), quiet():
        try:
            client = connect(**named, timeout=timeout)
        # Anything from a host that is not known to a certificate that does not fit.
        except Exception as error:
            raise ClusterError(
                f"no Dask scheduler answers {place} ({short(error)}); check that it is running, "
                "its address and, for tls://, the certificates"
            ) from error
        with client:
            try:
                with connected(TimeoutError):
                    client.wait_for_workers(1, timeout=timeout)
            except TimeoutError as error:
                raise ClusterError(
                    f"the Dask scheduler {place} has no workers; start some and try again"
                ) from error
            yield client


@contextmanager
def started_workers(file: Path, timeout: float) -> Iterator[Client]:
    """Start the cluster that a file describes, and close it in the end.

    Parameters
    ----------
    file : Path
        See `wbc_batch.engine.cluster_file`.
    timeout : float
        Seconds to wait for the cluster, and then for its first worker; a batch system may keep its job
        waiting.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        If the file cannot be used.
    ClusterError
        If the cluster does not start.
    IncompleteRunError
        If it does not come up in time, or no worker does.
    """
    description = read_cluster_file(file)
    with scratch() as place, quiet() as unheard:
        config = _OUR_CONFIG | (_KEPT_PLACES if description.adapt is None else {})
        if description.local:
            config = config | {"temporary-directory": place}
        with dask.config.set(config):
            cluster = _start_described(description, file, timeout)
            try:
                with connect(address=cluster) as client:
                    if not _first_worker(client, timeout, unheard):
                        raise IncompleteRunError(
                            f"no worker of the {description.name} started within {timeout:.0f} s; "
                            "check whether its jobs are waiting in a queue, then repeat the "
                            "command to continue"
                        )
                    if unheard and not client.nthreads():
                        raise ClusterError(
                            f"{file}: the {description.name} did not start any workers "
                            f"({short(unheard[0])})"
                        )
                    yield client
            finally:
                if failure := _close(cluster, _CLOSING):
                    _log.warning(
                        "the %s did not close (%s); check that its workers have ended",
                        description.name,
                        short(failure),
                    )


def _start_described(description: ClusterDescription, file: Path, timeout: float) -> Any:
    try:
        return _start(description, timeout, partial(_close, timeout=_GIVING_UP))
    except OverdueError as error:
        raise IncompleteRunError(
            f"{file}: {description.name} did not start within {timeout:.0f} s; check that "
            f"everything it needs is available ({description.needs}), then repeat the command to "
            "continue"
        ) from error
    # Every class has errors of its own.
    except Exception as error:
        wrong_argument = isinstance(error, TypeError) and "argument" in str(error)
        hint = "check which arguments it takes" if wrong_argument else description.needs
        raise ClusterError(
            f"{file}: {description.name} did not start ({short(error)}); {hint}"
        ) from error


def _close(cluster: Any, timeout: float) -> Exception | None:
    """Close a cluster, but not for ever; returns what went wrong. What came up by half rarely closes."""
    try:
        apart(cluster.close, timeout)
    except Exception as error:  # noqa: BLE001 - every class has errors of its own
        # Else Dask would try again when Python ends: in vain, loudly, and for ever.
        cluster.status = Status.closed
        return error
    return None


def _first_worker(client: Client, timeout: float, unheard: Sequence[BaseException]) -> bool:
    """Wait for a worker, or for an error after which there will be none; False if neither came."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with connected(TimeoutError):
                client.wait_for_workers(1, timeout=min(_TICK, timeout))
        except TimeoutError:
            if not unheard:
                continue
        return True
    return False
