"""Dask workers: of our own on this machine, of a cluster that we start, or somebody else's."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from wbc_batch.engine.cluster_file import read_cluster_file
from wbc_batch.errors import ClusterError, IncompleteRunError, InputError

__all__ = [
    "Client",
    "asked",
    "cores",
    "default_workers",
    "existing_workers",
    "expected_workers",
    "local_workers",
    "memory_of_workers",
    "started_workers",
]

_Answer = TypeVar("_Answer")

# A worker with torch and a model takes about half of it.
_MEMORY_PER_WORKER = 2**30

_TICK = 2.0  # seconds between looks at what goes wrong while workers start

_CONFIG = {
    "distributed.admin.large-graph-warning-threshold": "1 GiB",
    # Dask keeps the last thousand messages to each worker: of ours each holds a shard with all its cells.
    "distributed.admin.low-level-log-length": 0,
    "distributed.comm.retry.count": 3,
}

# For clusters that are ours. Workers read it from the process that starts them, or never.
_OUR_CONFIG = _CONFIG | {
    # A death is ours to judge (see `wbc_batch.engine.execute`), at once.
    "distributed.scheduler.allowed-failures": 0,
    # No worker holds results for others, so there is nothing to spill; and one that is paused
    # because its own work is large would wait for ever. What takes too much is ended.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}


def cores() -> int:
    """Count the cores that this process may use, by its affinity and control group."""
    return CPU_COUNT


def default_workers(device: str) -> int:
    """Choose how many workers suit this machine.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    int
        One for a GPU; else one for each core that has a GiB of memory.
    """
    if device != "cpu":
        return 1
    return max(min(CPU_COUNT, int(MEMORY_LIMIT) // _MEMORY_PER_WORKER), 1)


def memory_of_workers(wanted: str | None, workers: int) -> int:
    """Bytes that each of some workers on this machine may use.

    Parameters
    ----------
    wanted : str or None
        Such as ``2GiB`` or ``800 MB``; None shares out the memory of the machine, or of the control
        group that this process is in.
    workers : int

    Raises
    ------
    InputError
        If it is no amount of memory.
    """
    if wanted is None:
        return int(MEMORY_LIMIT) // workers
    try:
        limit = parse_bytes(wanted)
    except ValueError:
        limit = 0
    if limit < 1:
        raise InputError(f"{wanted!r} is no amount of memory; write it like 2GiB or 800MB")
    return limit


@contextmanager
def local_workers(workers: int, threads: int, memory: int) -> Iterator[Client]:
    """Start worker processes on this machine, and stop them in the end.

    Parameters
    ----------
    workers : int
        Number of processes; each runs one shard at a time.
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
    environment = {
        name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    config = _OUR_CONFIG | {
        "distributed.nanny.pre-spawn-environ": environment
        | {"MALLOC_TRIM_THRESHOLD_": 65536, "DASK_LOGGING__DISTRIBUTED": "critical"},
    }
    with TemporaryDirectory(prefix="wbc-batch-") as scratch, dask.config.set(config), _quiet():
        try:
            with _interrupts_held_back():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=memory,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    local_directory=scratch,
                    # Else it takes port 8787 although there is no dashboard.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"the {workers} worker processes, with {format_bytes(memory)} each, did not start "
                f"({error}); try fewer with --workers, or more memory with --memory-limit"
            ) from error
        try:
            with Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            _stop(cluster)


def _stop(cluster: LocalCluster) -> None:
    # What workers did is committed, and what they did not finish is done anew: no need to ask.
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if pid := nanny.pid:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
    with suppress(TimeoutError):  # on a busy machine; it must not undo a run that is done
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
    """
    place = f"at {address}" if scheduler_file is None else f"that {scheduler_file} tells of"
    if scheduler_file is not None and not scheduler_file.is_file():
        raise ClusterError(
            f"{scheduler_file}: there is no such file; name the one that the Dask scheduler writes"
        )
    named = {"address": address} if scheduler_file is None else {"scheduler_file": scheduler_file}
    with dask.config.set(_CONFIG), _quiet():
        client = Client.__new__(Client)
        try:
            client.__init__(**named, timeout=timeout, set_as_default=False)
        # Anything from a host that is not known to a certificate that does not fit.
        except Exception as error:
            # Else it would wait for itself, for long and in vain, when it is thrown away.
            client.status = "closed"
            raise ClusterError(
                f"no Dask scheduler answers {place} ({_short(error)}); check the address, that it is "
                "running, and for tls:// the certificates"
            ) from error
        with client:
            try:
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
        Seconds to wait for the first worker; a batch system may keep its job waiting.

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
        If no worker comes up in time.
    """
    description = read_cluster_file(file)
    with TemporaryDirectory(prefix="wbc-batch-") as scratch, _quiet() as unheard:
        defaults = {"temporary-directory": scratch} if description.local else {}
        with dask.config.set(_OUR_CONFIG | defaults):
            try:
                with _interrupts_held_back():
                    cluster = description.start()
            # Every class has errors of its own.
            except Exception as error:
                raise ClusterError(
                    f"{file}: {description.name} did not start ({_short(error)})"
                ) from error
            try:
                with Client(cluster, set_as_default=False) as client:
                    if not _first_worker(client, timeout, unheard):
                        raise IncompleteRunError(
                            f"no worker of the {description.name} came up for {timeout:.0f} s; see "
                            "whether its jobs wait in a queue, then repeat the command to continue"
                        )
                    if unheard and not client.nthreads():
                        raise ClusterError(
                            f"{file}: the {description.name} starts no workers "
                            f"({_short(unheard[0])})"
                        )
                    yield client
            finally:
                with suppress(Exception):  # one that came up by half cannot be closed wholly
                    cluster.close()


def _first_worker(client: Client, timeout: float, unheard: Sequence[BaseException]) -> bool:
    """Wait for a worker, or for an error after which there will be none; False if neither came."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            client.wait_for_workers(1, timeout=min(_TICK, timeout))
        except TimeoutError:
            if not unheard:
                continue
        return True
    return False


def asked(client: Client, question: Callable[[], Awaitable[_Answer]], timeout: float) -> _Answer:
    """Ask a client something, but not for ever: a scheduler or worker that is frozen never answers.

    Parameters
    ----------
    client : distributed.Client
    question : callable
        A method of the client.
    timeout : float
        Seconds.

    Raises
    ------
    TimeoutError
        If there is no answer in time.
    """

    async def bounded() -> _Answer:
        return await asyncio.wait_for(question(), timeout)

    return client.sync(bounded)


def expected_workers(client: Client) -> int:
    """Count the worker processes that are there, or will be when all have started."""
    return max(len(client.nthreads()), len(getattr(client.cluster, "plan", ())))


def _short(error: BaseException) -> str:
    """Tell the first cause of an error in one line; Dask wraps its own errors around others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextmanager
def _quiet() -> Iterator[list[BaseException]]:
    """Keep Dask's log off the terminal: what matters of it comes as our own errors.

    Yields
    ------
    list of exceptions
        Those that nobody waited for: all that tells that jobs could not be submitted.
    """
    unheard: list[BaseException] = []

    def refuse(record: logging.LogRecord) -> bool:
        if record.name.startswith(("tornado", "asyncio")) and record.exc_info:
            unheard.extend(error for error in record.exc_info[1:2] if error)
        return False

    # Dask's loggers all write through the handlers of this one, whose level clusters change.
    places = [*logging.getLogger("distributed").handlers, logging.getLogger("asyncio")]
    for place in places:
        place.addFilter(refuse)
    try:
        yield unheard
    finally:
        for place in places:
            place.removeFilter(refuse)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let threads and processes started inside never see Ctrl-C; this thread sees it later.

    Ctrl-C goes to every process of a terminal. Only the one that started the run should act on it.
    A thread inherits the signals that are blocked, and so do the processes that it starts.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
