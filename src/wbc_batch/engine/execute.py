"""A bounded window of shards in flight, and what happens when a worker dies.

Dask blames a worker's death on every shard that was assigned to it. So a shard is suspected only
after two deaths. Suspects wait until all else is done and then run alone, one at a time: first their
cells are only read, one after the other, leaving a trail that tells where the worker died. (Halving
the shard again and again would find the place, too, but lose a worker at each step.) An image that
kills becomes a row with an error; the rest of its shard is classified. A worker may also die of
something else meanwhile, so whatever kills is tried again before it is believed.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

from distributed import Client, Future
from distributed.protocol.pickle import dumps
from distributed.scheduler import KilledWorker

from wbc_batch.engine.capacity import GPU, gpu_workers
from wbc_batch.engine.connection import asked, connected, connection_lost, lacks_package
from wbc_batch.engine.plan import SHARDS_AT_ONCE, ShardSpec
from wbc_batch.engine.starting import interrupts_remembered
from wbc_batch.engine.work import attempt_packed, read_cells, run_shard
from wbc_batch.errors import ClusterError, IncompleteRunError, UnreachableError, WbcError
from wbc_batch.files import UNFINISHED
from wbc_batch.ledger import ShardResult, read_whole

__all__ = ["execute", "find_fatal"]

_DEATHS = 2  # of its worker, until a shard is suspected
_FAILURES = 3  # exceptions that are not ours, until a shard gives up
_MAX_FATAL = 32  # in one shard; where more images kill, it is not the images
_TRIES = 3  # of what should not kill, until it is believed that it does
_TICK = 0.5  # seconds between looks at the clock
_PATIENCE = 60  # seconds that a scheduler may take for an answer
_FETCH = 10  # seconds that a result may take to arrive, a few hundred bytes


@dataclass(frozen=True, slots=True)
class _Shard:
    spec: ShardSpec
    deaths: int = 0
    failures: int = 0


def execute(
    client: Client,
    specs: Iterable[ShardSpec],
    on_commit: Callable[[ShardResult], None],
    stall_timeout: float,
    *,
    on_gpu: bool = False,
) -> None:
    """Run shards on the workers of a client until all are committed.

    Parameters
    ----------
    client : distributed.Client
    specs : iterable of ShardSpec
        Taken one at a time, as workers become free.
    on_commit : callable
        Called with the result of each shard, in the order in which they end.
    stall_timeout : float
        Seconds without any shard ending after which the run is given up.
    on_gpu : bool
        Use only workers that offer the resource ``GPU``; each GPU classifies one shard at a time.

    Raises
    ------
    IncompleteRunError
        If no shard ends for `stall_timeout`, or a shard cannot be done.
    ClusterError
        If a worker has another version of this package, or none.
    WbcError
        What else a worker raised on purpose, such as that the model is missing.
    """
    with interrupts_remembered() as interrupts:
        flight = _Flight(client, stall_timeout, on_gpu, interrupts)
        try:
            _run_all(flight, specs, on_commit)
        finally:
            flight.cancel()


def _run_all(
    flight: "_Flight", specs: Iterable[ShardSpec], on_commit: Callable[[ShardResult], None]
) -> None:
    again: deque[_Shard] = deque()
    suspects: list[ShardSpec] = []
    fresh = map(_Shard, specs)
    while True:
        for shard in islice(chain(_drain(again), fresh), flight.room()):
            flight.launch(shard, run_shard, shard.spec)
        if not flight.size:
            break
        shard, outcome = flight.next_ended()
        if isinstance(outcome, ShardResult):
            on_commit(outcome)
        elif isinstance(outcome, KilledWorker) and _deaths(shard, outcome) >= _DEATHS:
            suspects.append(shard.spec)
        else:
            again.append(_after(shard, outcome))
    for spec in suspects:
        on_commit(_run_alone(flight, spec))


def find_fatal(
    fatal_in: Callable[[Sequence[int]], int | None], positions: Sequence[int]
) -> list[int]:
    """Find the cells that kill the process that reads them.

    Parameters
    ----------
    fatal_in : callable
        Has some cells read one after the other; returns which one was being read when the process
        died, or None if it survived.
    positions : sequence of int
        Cells to read, in order.

    Returns
    -------
    list of int
        Those that kill also when they are read alone: a process may die for reasons of its own.
    """
    fatal = []
    rest = list(positions)
    while rest and (suspect := fatal_in(rest)) is not None:
        if fatal_in([suspect]) is not None:
            fatal.append(suspect)
        rest = [position for position in rest if position > suspect]
    return fatal


@dataclass(frozen=True, slots=True)
class _Task:
    """Something on a worker; `note` is the file, if any, that has its result as soon as it is done."""

    tag: Any
    future: Future
    note: Path | None


class _Flight:
    """What is on the workers now. Nothing here waits for ever."""

    def __init__(
        self, client: Client, stall_timeout: float, on_gpu: bool, interrupts: Sequence[int]
    ) -> None:
        self._client = client
        self._interrupts = interrupts
        self._stall_timeout = stall_timeout
        self._on_gpu = on_gpu
        self._version = version("wbc-napari")
        self._launched: dict[str, _Task] = {}
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    @property
    def size(self) -> int:
        return len(self._launched)

    def room(self) -> int:
        """How many more tasks keep all workers busy: some for each process, or for each GPU."""
        with connected():
            workers = asked(self._client, self._client.nthreads, _PATIENCE)
            count = gpu_workers(self._client, "cuda") if self._on_gpu else len(workers)
        return max(SHARDS_AT_ONCE * max(count, 1) - self.size, 0)

    def launch(self, tag: Any, function: Callable, spec: ShardSpec, *arguments: Any) -> None:
        """Send a function to any worker; `next_ended` will return `tag` with what became of it."""
        key = f"{function.__name__}-{uuid4().hex}"
        future = self._client.submit(
            attempt_packed,
            self._version,
            # The scheduler unpacks and packs again what it passes on, but for bytes.
            dumps((function, (spec, *arguments))),
            key=key,
            pure=False,
            resources={GPU: 1 / SHARDS_AT_ONCE} if self._on_gpu else None,
        )
        note = Path(spec.job.shards, f"{spec.stem}.json") if function is run_shard else None
        self._launched[key] = _Task(tag, future, note)
        future.add_done_callback(lambda _: self._ended.put(key))

    def next_ended(self) -> tuple[Any, Any]:
        """Wait for any task to end; its tag, and its result or the exception that ended it."""
        deadline = time.monotonic() + self._stall_timeout
        while True:
            if self._interrupts:
                raise KeyboardInterrupt
            try:
                # A short wait lets Ctrl-C through on every system.
                task = self._launched.pop(self._ended.get(timeout=_TICK))
                break
            except queue.Empty:
                if self._client.status != "running":
                    raise connection_lost() from None
                if time.monotonic() > deadline:
                    raise IncompleteRunError(
                        f"no shard was finished for {self._stall_timeout:.0f} s; check that the "
                        "workers are still running, then repeat the command to continue"
                    ) from None
        # A shard that is committed is done, whatever became of its worker since.
        done = read_whole(task.note) if task.note else None
        return task.tag, done or self._outcome(task.future)

    def _outcome(self, future: Future) -> Any:
        """Get the result of a task that ended, or the exception; a `KilledWorker` where it was lost.

        A result stays on the worker until it is fetched. Where that has died, Dask computes it anew, and
        waits, however long that takes; we launch it again instead.
        """
        patience = min(_FETCH, self._stall_timeout)
        with connected(TimeoutError):
            try:
                if future.status != "lost":
                    return future.exception(timeout=patience) or future.result(timeout=patience)
            except Exception as error:
                if future.status == "error":  # as Dask computed it anew
                    return error
                if not (isinstance(error, TimeoutError) or future.cancelled()):
                    raise
        if future.cancelled():
            raise connection_lost()
        return KilledWorker(future.key, None, 0)

    def alone(self, function: Callable, spec: ShardSpec, *arguments: Any) -> Any:
        """Run a function while nothing else runs; its result, or the `KilledWorker`."""
        self.launch(None, function, spec, *arguments)
        _, outcome = self.next_ended()
        if isinstance(outcome, Exception) and not isinstance(outcome, KilledWorker):
            raise _given_up(outcome)
        return outcome

    def cancel(self) -> None:
        """Take back what has not ended."""
        futures = [task.future for task in self._launched.values()]
        if futures and self._client.status == "running":
            with suppress(OSError):  # a scheduler that is lost just now
                self._client.cancel(futures, force=True)
        self._launched.clear()


def _drain(shards: deque[_Shard]) -> Iterator[_Shard]:
    while shards:
        yield shards.popleft()


def _deaths(shard: _Shard, error: KilledWorker) -> int:
    """Deaths so far: other people's schedulers try again a few times before they tell."""
    return shard.deaths + error.allowed_failures + 1


def _after(shard: _Shard, error: Exception) -> _Shard:
    if isinstance(error, KilledWorker):
        return replace(shard, deaths=_deaths(shard, error))
    ours = isinstance(error, WbcError) and not isinstance(error, UnreachableError)
    if ours or shard.failures + 1 == _FAILURES:
        raise _given_up(error)
    return replace(shard, failures=shard.failures + 1)


def _given_up(error: Exception) -> Exception:
    """Choose what to raise for an error that repeating did not help against."""
    if isinstance(error, OSError):
        return IncompleteRunError(
            f"a worker could not continue ({error}); fix that, then repeat the command to continue"
        )
    if lacks_package(error):
        return ClusterError(
            f"a worker lacks a package ({error}); install wbc-napari {version('wbc-napari')} on "
            "every worker, then repeat the command to continue"
        )
    return error


def _run_alone(flight: _Flight, spec: ShardSpec) -> ShardResult:
    """Run a suspected shard, without the cells that kill, while nothing else runs."""
    fatal = find_fatal(_Trail(flight, spec).fatal_in, range(len(spec.cells)))
    for _ in range(_TRIES):
        outcome = flight.alone(run_shard, replace(spec, fatal=tuple(fatal)))
        if not isinstance(outcome, KilledWorker):
            return outcome
    raise _keeps_dying(spec)


class _Trail:
    """Reads cells of one shard on workers, and knows where those died."""

    def __init__(self, flight: _Flight, spec: ShardSpec) -> None:
        self._flight = flight
        self._spec = spec
        self._deaths = 0  # while a cell was read
        self._early = 0  # before any was, one after the other

    def fatal_in(self, positions: Sequence[int]) -> int | None:
        """See `find_fatal`."""
        while True:
            outcome, last = self._read(positions)
            if not isinstance(outcome, KilledWorker):
                return None
            self._deaths += bool(last)
            self._early = 0 if last else self._early + 1
            if self._deaths > 2 * _MAX_FATAL or self._early == _TRIES:
                raise _keeps_dying(self._spec)
            if last:
                return int(last)

    def _read(self, positions: Sequence[int]) -> tuple[Any, str]:
        """Have cells read; what became of it, and the position at which it ended, if it came so far."""
        # A name that nobody asked for yet: NFS says for some time that a file is not there, once it was not.
        name = f".{self._spec.stem}.trail-{uuid4().hex}{UNFINISHED}"
        trail = Path(self._spec.job.shards, name)
        try:
            outcome = self._flight.alone(read_cells, self._spec, positions, trail)
            return outcome, trail.read_text() if trail.exists() else ""
        finally:
            trail.unlink(missing_ok=True)


def _keeps_dying(spec: ShardSpec) -> IncompleteRunError:
    first, last = (PurePath(cell.source, cell.member) for cell in (spec.cells[0], spec.cells[-1]))
    return IncompleteRunError(
        f"workers keep dying on the cells from {first} to {last}, and not because of a few images; "
        "check that they have enough memory (--memory-limit, fewer --workers), then repeat the "
        "command to continue"
    )
