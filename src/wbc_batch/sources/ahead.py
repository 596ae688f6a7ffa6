"""A function called ahead of whoever takes its results: on threads, or in processes.

A canonical crop is some forty short calls into libraries, and after each of them a thread waits for the
interpreter's lock: sixteen threads make no more of them than one. Processes do. Here they are plain children
that talk over pipes: a pipe ends with its other side, so that none outlives the process that started it; and
workers of Dask may have no children of `multiprocessing`.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar
from weakref import finalize

import numpy as np

from wbc_batch.errors import UnreachableError, nobody_reads

__all__ = ["dismiss", "map_apart", "run_ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Tasks of each process that are under way, or done and not yet taken.
_AHEAD = 2
_CODE = "from wbc_batch.sources.ahead import _serve; _serve({})"
_SINGLE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Threads of one process share one crew: one call gives it tasks until it has no more, then the next one.
_hiring, _turn = Lock(), Lock()


@dataclass(frozen=True)
class _Child:
    """A process that does tasks, and the memory through which arrays come from it, where there is such.

    A pipe gives them in pieces, after each of which the reader waits for the interpreter's lock.
    """

    process: subprocess.Popen[bytes]
    memory: int | None


def run_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, ahead: int
) -> Iterator[_Result]:
    """Call a function for each item, on threads, a bounded number ahead of the consumer.

    Parameters
    ----------
    function : callable
    items : iterable
        Taken on the consumer's thread.
    threads : int
    ahead : int
        Results that are there, or under way, and not yet taken.

    Yields
    ------
    object
        What the function returns, in the order of the items.
    """
    todo = iter(items)
    under_way: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        for item in islice(todo, ahead):
            under_way.append(pool.submit(function, item))
        while under_way:
            result = under_way.popleft().result()
            for item in islice(todo, 1):
                under_way.append(pool.submit(function, item))
            yield result


def map_apart(
    function: Callable[[Sequence[_Item]], list[_Result]],
    items: Iterable[_Item],
    processes: int,
    at_once: int = 64,
) -> Iterator[_Result]:
    """Call a function for some items at a time, in processes, a bounded number ahead of the consumer.

    The processes stay for the next call, and end with this one. Of calls on several threads one waits until
    the other has given out its last items, or is closed: those that are wanted first are done first.

    Parameters
    ----------
    function : callable
        Gives a result for each item; with its arguments it can be pickled. An `UnreachableError` that it
        raises is raised here; nothing else may be.
    items : iterable
        Can be pickled.
    processes : int
    at_once : int
        Items that go to a process at once: some, so that a block of an array is loaded by few of them.

    Yields
    ------
    object
        A result for each item, in their order.

    Raises
    ------
    ChildProcessError
        If a process dies of an item.
    """
    with _hiring:
        crew = _crew(processes)

    def call(some: tuple[_Item, ...]) -> list[_Result]:
        child = crew.get()
        try:
            _send(child, (function, some))
            results: list[_Result] | UnreachableError = _receive(child)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            dismiss()
            raise ChildProcessError("a process that reads images has died") from error
        finally:
            crew.put(child)  # a dead one, too: those that wait for it shall hear of it
        if isinstance(results, UnreachableError):
            raise results
        return results

    todo = iter(items)
    tasks = iter(lambda: tuple(islice(todo, at_once)), ())
    with closing(_in_turn(tasks)) as ours:  # what is raised may be kept, and this with it
        for results in run_ahead(call, ours, processes, _AHEAD * processes):
            yield from results


def _in_turn(tasks: Iterator[_Item]) -> Generator[_Item, None, None]:
    with _turn:
        yield from tasks


def dismiss() -> None:
    """Have the next call of `map_apart` start new processes; the present ones end when no call uses them."""
    _crew.cache_clear()


@lru_cache(maxsize=1)
def _crew(processes: int) -> "SimpleQueue[_Child]":
    crew: SimpleQueue[_Child] = SimpleQueue()
    for _ in range(processes):
        crew.put(_born())
    return crew


def _born() -> _Child:
    environment = os.environ | dict.fromkeys(_SINGLE, "1") | {"CUDA_VISIBLE_DEVICES": ""}
    memory = os.memfd_create("crops") if hasattr(os, "memfd_create") else None  # on Linux
    process = subprocess.Popen(
        # -P: what lies in the current folder, such as somebody's statistics.py, is no library.
        [sys.executable, "-P", "-c", _CODE.format(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        pass_fds=() if memory is None else (memory,),
    )
    child = _Child(process, memory)
    if memory is not None:
        finalize(child, os.close, memory)
    return child


def _send(child: _Child, task: object) -> None:
    assert child.process.stdin
    pickle.dump(task, child.process.stdin, pickle.HIGHEST_PROTOCOL)
    child.process.stdin.flush()


def _receive(child: _Child) -> list[_Result] | UnreachableError:
    assert child.process.stdout
    content, sizes = pickle.load(child.process.stdout)
    arrays = []
    if sizes:
        assert child.memory is not None
        # Not a bytearray, which is filled with zeros first: half of the time.
        all_arrays, start = np.empty(sum(sizes), np.uint8).data, 0
        _read(child.memory, all_arrays)
        for size in sizes:
            arrays.append(all_arrays[start : start + size])
            start += size
    results: list[_Result] | UnreachableError = pickle.loads(content, buffers=arrays)
    return results


def _serve(memory: int | None) -> None:
    """Do tasks for the process at the other end of standard input and output, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started this
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    try:
        while True:
            function, some = pickle.load(tasks)
            try:
                results = function(some)
            except UnreachableError as error:
                results = error
            answer = _packed(results, memory)
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        if isinstance(error, OSError) and not nobody_reads(error):
            raise
        os._exit(0)


def _packed(results: object, memory: int | None) -> tuple[bytes, list[int]]:
    """Put the arrays of some results into the memory; return the rest, and the bytes of each array."""
    if memory is None:
        return pickle.dumps(results, pickle.HIGHEST_PROTOCOL), []
    arrays: list[pickle.PickleBuffer] = []
    content = pickle.dumps(results, pickle.HIGHEST_PROTOCOL, buffer_callback=arrays.append)
    end = 0
    for array in arrays:
        rest = array.raw()
        while rest:
            written = os.pwrite(memory, rest, end)
            rest, end = rest[written:], end + written
    return content, [array.raw().nbytes for array in arrays]


def _read(memory: int, target: memoryview) -> None:
    start = 0
    while start < len(target):
        count = os.preadv(memory, [target[start:]], start)
        if not count:
            raise EOFError("the memory ends before the arrays do")
        start += count
