"""What Dask costs, and what a second worker brings: python benchmarks/engine.py [FOLDER].

Classifies the same files in the same run
- with the bare function, `run_shard` called for one shard after the other, without Dask;
- with one Dask worker, and with two, that have a core each;
- with one Dask worker that has two cores.

Every worker is held to cores of its own, as on a machine where all cores have work; else one that
decodes and infers at the same time would use its idle neighbour's core. Model and workers are warm;
the time to start them is told apart. The ways take turns, round by round, and medians are printed,
since other work on the machine changes from minute to minute. Where it is busy, trust the processor
time, that of client, scheduler and workers together, more than the clock.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import loads
import psutil
from distributed import Client

from wbc_batch.classifier import read_bundle
from wbc_batch.engine.clusters import cores, local_workers, memory_of_workers
from wbc_batch.engine.execute import execute
from wbc_batch.engine.ledger import SHARDS
from wbc_batch.engine.plan import MAX_SHARD, Job, ShardSpec, model_digest, plan_shards
from wbc_batch.engine.work import run_shard
from wbc_batch.sources import list_cells

WARM = 64  # cells
Way = Callable[[list[ShardSpec]], None]


@dataclass(frozen=True)
class Taken:
    """Seconds: to start and warm up; for the cells, by the clock and of processors."""

    start: float
    clock: float
    processor: float


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
            yield lambda specs: pool.submit(all_of_them, specs).result()
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
        warm_up(client)
        yield lambda specs: execute(client, specs, lambda _: None, 600)


def warm_up(client: Client) -> None:
    """Import what shards need, on every worker: not every one gets a shard at first."""
    client.run(__import__, "wbc_batch.engine.work")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="images; drawn ones without it")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where links and results are written")
    options = parser.parse_args()
    if cores() < 2:
        parser.error("it takes two cores")
    with TemporaryDirectory(dir=options.scratch) as scratch:
        compare(options, Path(scratch))


def compare(options: argparse.Namespace, scratch: Path) -> None:
    tree = loads.linked_tree(
        loads.images(options.folder, scratch), options.cells, scratch / "slides"
    )
    ways = {
        "the bare function": (1, lambda: bare(0)),
        "one Dask worker": (1, lambda: dask([[0]])),
        "two Dask workers": (1, lambda: dask([[0], [1]])),
        "one Dask worker with two cores": (2, lambda: dask([[0, 1]])),
    }
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, (threads, way) in ways.items():
            job = new_job(scratch, threads)
            begun = time.perf_counter()
            with way() as run:
                run(specs(tree, job, WARM)[:2])
                start = time.perf_counter() - begun
                taken[name].append(measured(run, specs(tree, job, MAX_SHARD // 4), start))
            speed = options.cells / taken[name][-1].clock
            print(f"round {number + 1}: {name}: {speed:.0f} cells/s", flush=True)
    show(options.cells, taken)


def measured(run: Way, todo: list[ShardSpec], start: float) -> Taken:
    clock, processor = time.perf_counter(), processor_seconds()
    run(todo)
    return Taken(start, time.perf_counter() - clock, processor_seconds() - processor)


def processor_seconds() -> float:
    """Of this process and those that it started."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def new_job(scratch: Path, threads: int) -> Job:
    shutil.rmtree(scratch / SHARDS, ignore_errors=True)
    (scratch / SHARDS).mkdir()
    bundle = read_bundle()
    place = str(scratch / SHARDS)
    return Job("default", model_digest(bundle), "cpu", "auto", threads, str(Path.cwd()), place)


def specs(tree: Path, job: Job, size: int) -> list[ShardSpec]:
    return list(plan_shards(list_cells([tree]), job, size))


def show(cells: int, taken: dict[str, list[Taken]]) -> None:
    rounds = len(next(iter(taken.values())))
    print(f"\n{cells} cells, medians of {rounds} rounds")
    print(f"{'':32}cells/s  from .. to    processor ms per cell   s to start")
    clock, processor = {}, {}
    for name, values in taken.items():
        clocks = [value.clock for value in values]
        clock[name] = statistics.median(clocks)
        processor[name] = statistics.median(value.processor for value in values)
        speeds = f"{cells / max(clocks):5.0f} .. {cells / min(clocks):.0f}"
        start = statistics.median(value.start for value in values)
        each = 1000 * processor[name] / cells
        print(f"{name:32}{cells / clock[name]:7.0f}  {speeds:14}{each:12.2f}{start:21.1f}")
    bare_, one, two, wide = clock.values()
    busy, busy_one, *_ = processor.values()
    print("\nDask against the bare function")
    print(f"  by the clock        {100 * (one / bare_ - 1):+.1f} %")
    print(f"  by processor time   {100 * (busy_one / busy - 1):+.1f} %")
    print(f"two workers are {one / two:.2f} times as fast as one")
    print(f"two workers with a core each are {wide / two:.2f} times as fast as one with two cores")


if __name__ == "__main__":
    main()
