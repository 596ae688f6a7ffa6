"""Processes that read and prepare cells for a worker with a GPU.

A canonical crop is some forty short calls into libraries, and after each of them a thread waits for the
interpreter's lock: many threads prepare hardly more cells than one. A GPU takes more than that, so each core
beside it gets a process. They are plain children that talk over pipes: a pipe ends with its other side, so
that none outlives its worker, and workers of Dask may have no children of `multiprocessing`.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import ImageError
from wbc_batch.sources import Cell, attempt_read, calm_decoders, prepared_readers, run_ahead

__all__ = ["read_apart"]

# Cells that go to a process at once: some, so that a block of an array is loaded by few of them.
_TASK = 64
# Tasks of each process that are under way or done and not yet taken.
_AHEAD = 2
_CODE = "from wbc_batch.engine.decoding import _serve; _serve()"

_Result = NDArray[np.uint8] | ImageError


def read_apart(
    cells: Iterable[Cell], preprocessing: Preprocessing, base: Path, processes: int
) -> Iterator[_Result]:
    """Read and prepare cells in processes, a bounded number ahead of the consumer, in order.

    A process that dies of an image takes this one along, as if it had been read here.

    Parameters
    ----------
    cells : iterable of Cell
    preprocessing : Preprocessing
    base : Path
        The folder that relative sources start from.
    processes : int

    Yields
    ------
    ndarray of uint8, shape (S, S, 3), or ImageError
    """
    crew = _crew(preprocessing, base, processes)

    def read(some: Sequence[Cell]) -> list[_Result]:
        process = crew.get()
        assert process.stdin
        assert process.stdout
        try:
            pickle.dump(some, process.stdin)
            process.stdin.flush()
            results = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            os._exit(1)
        crew.put(process)
        return results

    for results in run_ahead(read, _tasks(cells), processes, _AHEAD * processes):
        yield from results


def _tasks(cells: Iterable[Cell]) -> Iterator[tuple[Cell, ...]]:
    rest = iter(cells)
    while some := tuple(islice(rest, _TASK)):
        yield some


@lru_cache(maxsize=1)
def _crew(
    preprocessing: Preprocessing, base: Path, processes: int
) -> "queue.SimpleQueue[subprocess.Popen[bytes]]":
    """Start the processes, which stay for the shards that follow."""
    crew: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for _ in range(processes):
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | single | {"CUDA_VISIBLE_DEVICES": ""},
        )
        assert process.stdin
        pickle.dump((preprocessing, base), process.stdin)
        crew.put(process)
    return crew


def _serve() -> None:
    """Read cells for the process at the other end of standard input and output, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those that started the run
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    calm_decoders()
    try:
        preprocessing, base = pickle.load(requests)
        while True:
            reads = prepared_readers(pickle.load(requests), preprocessing, base)
            pickle.dump([attempt_read(read) for read in reads], answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        os._exit(0)
