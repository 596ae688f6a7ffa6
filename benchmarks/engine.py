"""What Dask costs, and what a second worker brings: python benchmarks/engine.py [FOLDER].

Classifies the same files in the same run
- with the bare function, `run_shard` called for one shard after the other, without Dask;
- with one Dask worker, and with two, that have a core each;
- with one Dask worker that has two cores.

Every worker is held to cores of its own, as on a machine where all cores have work; else one that
decodes and infers at the same time would use its idle neighbour's core. Models and workers are warm, and
wait while it is not their turn. The ways take turns, part by part of the cells, since other work on the
machine changes from minute to minute; printed are the medians of the parts. Where the machine is busy,
trust the processor time, that of client, scheduler and workers together, more than the clock.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import inputs
import psutil
from distributed import Client

from wbc_batch.classifier import read_bundle
from wbc_batch.engine.clusters import local_workers
from wbc_batch.engine.execute import execute
from wbc_batch.engine.machine import cores, memory_of_workers
from wbc_batch.engine.plan import Job, ShardSpec, model_digest, plan_shards
from wbc_batch.engine.work import run_shard
from wbc_batch.schema import SHARDS
from wbc_batch.sources import list_cells

WARM = 64  # cells
SHARD, PART = 1024, 4096  # cells

BARE, ONE, TWO, WIDE = (
    "the bare function",
    "one Dask worker",
    "two Dask workers",
    "one Dask worker with two cores",
)


@dataclass(frozen=True)
class Way:
    """Something that classifies shards, the processes that do it, and the cores of each."""

    run: Callable[[list[ShardSpec]], None]
    processes: list[int]
    threads: int


@dataclass(frozen=True)
class Taken:
    """Seconds of a part of the cells: by the clock, and of processors."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Cost:
    """What comes of it: what Dask costs, per cent of the bare function, and how fast two workers are."""

    percent: float
    two_workers: float


def hold_to(held: list[int]) -> None:
    """Hold this process, with the threads that it has and will have, to some cores."""
    for thread in psutil.Process().threads():
        os.sched_setaffinity(thread.id, held)


@contextmanager
def bare(core: int) -> Iterator[Way]:
    """One process that calls the function, without Dask."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(hold_to, [core]).result()
            process = pool.submit(os.getpid).result()
            yield Way(lambda specs: pool.submit(all_of_them, specs).result(), [process], 1)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def all_of_them(specs: list[ShardSpec]) -> None:
    for spec in specs:
        run_shard(spec)


@contextmanager
def dask(held: list[list[int]]) -> Iterator[Way]:
    """Dask workers, each with cores of its own."""
    with local_workers(len(held), len(held[0]), memory_of_workers(None, len(held))) as client:
        for worker, its in zip(client.nthreads(), held, strict=True):
            client.run(hold_to, its, workers=[worker])
        processes = list(client.run(os.getpid).values())
        yield Way(partial(through_dask, client), processes, len(held[0]))


def through_dask(client: Client, specs: list[ShardSpec]) -> None:
    execute(client, specs, lambda _: None, 600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="images; drawn ones without it")
    parser.add_argument("--cells", type=int, default=20_000, help="that each way classifies")
    parser.add_argument("--scratch", type=Path, help="where links and results are written")
    options = parser.parse_args()
    if cores() < 2:
        parser.error("it takes two cores")
    with TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        originals = inputs.images(options.folder, scratch)
        tree = inputs.linked_tree(originals, options.cells, scratch / "slides")
        compare(tree, options.cells, scratch)


def compare(tree: Path, cells: int, scratch: Path) -> Cost:
    """Let all ways classify the cells, part by part in turn, and print what they took."""
    parts = -(-cells // PART)
    with ExitStack() as stack:
        ways = {
            BARE: stack.enter_context(bare(0)),
            ONE: stack.enter_context(dask([[0]])),
            TWO: stack.enter_context(dask([[0], [1]])),
            WIDE: stack.enter_context(dask([[0, 1]])),
        }
        taken: dict[str, list[Taken]] = {name: [] for name in ways}
        for way in ways.values():  # enough shards for every worker to get some
            way.run(specs(tree, new_job(scratch, way), range(4 * WARM), WARM))
        for part in range(parts):
            some = range(part * PART, min((part + 1) * PART, cells))
            for name, way in ways.items():
                size = min(SHARD, -(-len(some) // 4))  # work for every worker
                todo = specs(tree, new_job(scratch, way), some, size)
                taken[name].append(measured(way, todo))
                speed = len(some) / taken[name][-1].clock
                told = f"part {part + 1} of {parts}: {name}: {speed:.0f} cells/s"
                print(told, file=sys.stderr, flush=True)
    return show(cells, taken)


def measured(way: Way, todo: list[ShardSpec]) -> Taken:
    clock, processor = time.perf_counter(), processor_seconds(way.processes)
    way.run(todo)
    return Taken(time.perf_counter() - clock, processor_seconds(way.processes) - processor)


def processor_seconds(processes: list[int]) -> float:
    """Of these, and of this one: client and scheduler."""
    times = [psutil.Process(number).cpu_times() for number in (os.getpid(), *processes)]
    return sum(spent.user + spent.system for spent in times)


def new_job(scratch: Path, way: Way) -> Job:
    shutil.rmtree(scratch / SHARDS, ignore_errors=True)
    (scratch / SHARDS).mkdir()
    digest, place = model_digest(read_bundle()), str(scratch / SHARDS)
    return Job("default", digest, "cpu", "auto", way.threads, str(Path.cwd()), place)


def specs(tree: Path, job: Job, some: range, size: int) -> list[ShardSpec]:
    cells = islice(list_cells([tree]), some.start, some.stop)
    return list(plan_shards(cells, job, size))


def show(cells: int, taken: dict[str, list[Taken]]) -> Cost:
    parts = len(taken[BARE])
    print(f"\n{cells} cells, medians of {parts} parts")
    print(f"{'':32}cells/s  from .. to    processor ms per cell")
    for name, values in taken.items():
        # The last part may be smaller.
        speeds = [count / value.clock for count, value in zip(sizes(cells), values, strict=True)]
        each = 1000 * sum(value.processor for value in values) / cells
        spread = f"{min(speeds):5.0f} .. {max(speeds):.0f}"
        print(f"{name:32}{statistics.median(speeds):7.0f}  {spread:14}{each:12.2f}")
    print("\nDask against the bare function")
    percent = 100 * (ratio(taken, ONE, BARE, "clock") - 1)
    print(f"  by the clock        {percent:+.1f} %")
    print(f"  by processor time   {100 * (ratio(taken, ONE, BARE, 'processor') - 1):+.1f} %")
    two_workers = ratio(taken, ONE, TWO, "clock")
    print(f"two workers are {two_workers:.2f} times as fast as one")
    wide = ratio(taken, WIDE, TWO, "clock")
    print(f"two workers with a core each are {wide:.2f} times as fast as one with two cores")
    return Cost(percent, two_workers)


def sizes(cells: int) -> list[int]:
    return [min(PART, cells - begin) for begin in range(0, cells, PART)]


def ratio(taken: dict[str, list[Taken]], one: str, other: str, what: str) -> float:
    """How many times as long as another way one way took; the median of the parts."""
    pairs = zip(taken[one], taken[other], strict=True)
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)


if __name__ == "__main__":
    main()
