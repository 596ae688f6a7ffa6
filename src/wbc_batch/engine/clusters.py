"""Dask workers: of our own on this machine, or somebody else's."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from wbc_batch.errors import ClusterError

__all__ = [
    "Client",
    "check_workers",
    "cores",
    "default_workers",
    "existing_workers",
    "local_workers",
]

# A worker with torch and a model takes about half of it.
_MEMORY_PER_WORKER = 2**30

_CONFIG = {
    "distributed.admin.large-graph-warning-threshold": "1 GiB",
    "distributed.comm.retry.count": 3,
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


@contextmanager
def local_workers(workers: int, threads: int) -> Iterator[Client]:
    """Start worker processes on this machine, and stop them in the end.

    Parameters
    ----------
    workers : int
        Number of processes; each runs one shard at a time.
    threads : int
        Cores that each may use.

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
    config = _CONFIG | {
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
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    local_directory=scratch,
                    scheduler_kwargs={
                        # A death is ours to judge (see `wbc_batch.engine.execute`), at once.
                        "allowed_failures": 0,
                        # Else it takes port 8787 although there is no dashboard.
                        "dashboard_address": "127.0.0.1:0",
                    },
                )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"the {workers} worker processes did not start ({error}); try fewer with --workers"
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
    cluster.close(timeout=5)


@contextmanager
def existing_workers(address: str, timeout: float = 20.0) -> Iterator[Client]:
    """Connect to a running Dask scheduler; its workers are left alone in the end.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.1:8786``.
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
    with dask.config.set(_CONFIG), _quiet():
        try:
            client = Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address}; check the address and that it is running"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=timeout)
            except TimeoutError as error:
                raise ClusterError(
                    f"the Dask scheduler at {address} has no workers; start some and try again"
                ) from error
            yield client


def check_workers(client: Client, shards: Path, inputs: Sequence[Path]) -> None:
    """Make sure that every worker can do its part, before any work.

    Parameters
    ----------
    client : distributed.Client
    shards : Path
        Absolute path of the folder that results are written to.
    inputs : sequence of Path
        Absolute paths of the inputs.

    Raises
    ------
    ClusterError
        If a worker lacks this version of wbc-napari, cannot read an input or cannot write results
        where this machine finds them.
    """
    token = f".probe-{uuid4().hex}"
    (shards / token).touch()
    try:
        answers = client.run(_look_around, shards / token, inputs, on_error="return")
    finally:
        for left in shards.glob(f"{token}*"):
            left.unlink()
    ours = version("wbc-napari")
    for worker, answer in sorted(answers.items()):
        complaint = _complaint(answer, ours)
        if complaint:
            raise ClusterError(f"the Dask worker {worker} {complaint}")


def _look_around(token: Path, inputs: Sequence[Path]) -> tuple[str, str]:
    """Version of wbc-napari on this worker, and what is wrong with its view of the files."""
    installed = version("wbc-napari")
    for path in (*inputs, token):
        if not path.exists():
            place = token.parent if path is token else path
            return installed, f"does not see {place}; put it on a file system that all share"
    try:
        token.with_name(f"{token.name}-{uuid4().hex}").touch()
    except OSError as error:
        return installed, f"cannot write to {token.parent} ({error.strerror})"
    return installed, ""


def _complaint(answer: tuple[str, str] | Exception, ours: str) -> str:
    if isinstance(answer, ModuleNotFoundError):
        return f"lacks a package ({answer}); install wbc-napari {ours} on every worker"
    if isinstance(answer, Exception):
        return f"does not answer ({type(answer).__name__}: {answer})"
    installed, trouble = answer
    if installed != ours:
        return f"has wbc-napari {installed}; install {ours}, the same as here, on every worker"
    return trouble


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the terminal: what matters of it comes as our own errors."""
    # Its loggers have levels of their own; all write through the handlers of this one.
    before = [(handler, handler.level) for handler in logging.getLogger("distributed").handlers]
    try:
        for handler, _ in before:
            handler.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for handler, level in before:
            handler.setLevel(level)


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
