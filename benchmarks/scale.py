"""How a run grows with its cells: python benchmarks/scale.py [FOLDER] --cells 10000 50000 200000.

For each number of cells, in a process of its own, a whole run: seconds, and the client's resident
memory, while it lists, while the workers classify, while it writes the reports. Cells are files of
a folder tree, few images linked many times; or with --zarr, tiny crops of one array. With --no-network
workers write rows of random predictions without reading any image: what grows with the cells in client
and reports shows in a fraction of the time.

Then the limits of the parts, each alone: how many cells a second can be listed and cut into shards,
how many shards a second pass from the client through Dask's scheduler to workers and back when the
workers do nothing (threads of this process, so that all runs on one core: a lower limit), how
long it takes to read back what is committed, and what shards under way and GeoJSON need.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import inputs
import psutil

if TYPE_CHECKING:
    from pyarrow import Table

    from wbc_batch.engine.plan import Job, ShardSpec
    from wbc_batch.ledger import ShardResult
    from wbc_batch.sources import Cell

MIB = 2**20
PART_CELLS, PART_SHARDS = 20_000, 500
PHASES = ("listing", "classifying", "reporting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="images; drawn ones without it")
    parser.add_argument("--cells", type=int, nargs="*", default=[10_000, 50_000, 200_000])
    parser.add_argument("--zarr", action="store_true", help="tiny crops of an array, not files")
    parser.add_argument("--no-network", action="store_true", help="rows of random predictions")
    parser.add_argument("--model", default="default")
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[1, 10, 100], help="doing nothing"
    )
    parser.add_argument("--scratch", type=Path, help="where links and results are written")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with random_predictions() if options.no_network else nullcontext():
            place, run_dir = options.one
            one_run(place, run_dir, options.model)
        return
    with TemporaryDirectory(dir=options.scratch) as scratch:
        runs(options, Path(scratch))
        parts(options, Path(scratch))


# --- whole runs


def runs(options: argparse.Namespace, scratch: Path) -> None:
    if not options.cells:
        return
    originals = [] if options.zarr else inputs.images(options.folder, scratch / "images")
    print(f"{'':9}{'seconds':^27}   {'resident memory of the client, MiB':^36}   shard  cells.csv")
    heads = "".join(f"{phase:>12}" for phase in PHASES)
    print(f"{'cells':>9}{heads}{heads}  +ms/core  bytes/row  cells/s", flush=True)
    for cells in options.cells:
        if options.zarr:
            place = inputs.tiny_crops(cells, scratch / f"{cells}.zarr")
        else:
            place = inputs.linked_tree(originals, cells, scratch / f"tree-{cells}")
        run_dir = scratch / f"run-{cells}"
        script = [sys.executable, __file__, "--model", options.model]
        script += ["--no-network"] if options.no_network else []
        told = subprocess.run(
            [*script, "--one", place, run_dir], check=True, stdout=subprocess.PIPE, text=True
        )
        print_run(cells, run_dir, json.loads(told.stdout))


def print_run(cells: int, run_dir: Path, told: dict) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    shards = len(list((run_dir / "shards").glob("*.json")))
    spare = record["workers"] * told["classifying"]["seconds"] - record["worker_seconds"]
    row = (run_dir / "cells.csv").stat().st_size / cells
    seconds = "".join(f"{told[phase]['seconds']:12.1f}" for phase in PHASES)
    memory = "".join(f"{told[phase]['memory'] / MIB:12.0f}" for phase in PHASES)
    speed = cells / told["classifying"]["seconds"]
    overhead = 1000 * spare / shards
    print(f"{cells:9}{seconds}{memory}{overhead:10.0f}{row:11.0f}{speed:9.0f}", flush=True)


def one_run(place: Path, run_dir: Path, model: str) -> None:
    """Run, and print what each phase took, in this process of its own."""
    from wbc_batch.run import classify_paths

    phase = PHASES[0]
    peak = dict.fromkeys(PHASES, 0)
    began = {phase: time.monotonic()}

    def progress(done: int, cells: int) -> None:
        nonlocal phase
        new = PHASES[1] if done < cells else PHASES[2]
        began.setdefault(new, time.monotonic())
        phase = new

    def watch() -> None:
        here = psutil.Process()
        while True:
            peak[phase] = max(peak[phase], here.memory_info().rss)
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    classify_paths(place, run_dir, model=model, device="cpu", progress=progress)
    began["end"] = time.monotonic()
    seconds = {
        name: end - begin
        for name, (begin, end) in zip(PHASES, pairwise(began.values()), strict=True)
    }
    print(json.dumps({name: {"seconds": seconds[name], "memory": peak[name]} for name in PHASES}))


def random_predictions() -> AbstractContextManager:
    """Have workers write rows without reading images."""
    from wbc_batch.engine import execute

    return patch.object(execute, "run_shard", write_random_rows)


def write_random_rows(spec: "ShardSpec") -> "ShardResult":
    from wbc_batch.engine import work

    idle = SimpleNamespace(device="none", precision="none", backend="none")
    with (
        patch.object(work, "refuse_blind", lambda _: None),
        patch.object(work, "load_classifier", lambda _: idle),
        patch.object(work, "crops_of_shard", no_crops),
        patch.object(work, "_classify", random_rows),
    ):
        return work.run_shard(spec)


def no_crops(*_: object) -> Iterator[None]:
    yield from ()


def random_rows(_: object, spec: "ShardSpec", _crops: object) -> "Table":
    import numpy as np
    import pandas as pd

    from wbc_batch.engine import work
    from wbc_batch.schema import CLASSES

    chance = np.random.default_rng(spec.number)
    chances = np.sort(chance.dirichlet(np.ones(len(CLASSES)), len(spec.cells)))
    names = np.array(CLASSES)[chance.integers(0, len(CLASSES), len(spec.cells))]
    columns = {"label": names, "predicted": names, "confidence": chances[:, -1]}
    columns |= {"margin": chances[:, -1] - chances[:, -2], "novelty": chances[:, 0]}
    columns |= {f"prob_{name}": chances[:, place] for place, name in enumerate(CLASSES)}
    return work._rows(spec.job, spec.cells, pd.DataFrame(columns), {})


# --- the parts, each alone


def parts(options: argparse.Namespace, scratch: Path) -> None:
    from wbc_batch.engine.plan import MAX_SHARD, Job, plan_shards, survey
    from wbc_batch.sources import list_cells

    if options.zarr:
        place = inputs.tiny_crops(PART_CELLS, scratch / "part.zarr")
    else:
        place = inputs.linked_tree(
            inputs.images(options.folder, scratch)[:1], PART_CELLS, scratch / "part"
        )
    job = Job("default", "0" * 32, "cpu", "auto", 1, str(Path.cwd()), str(scratch / "none"))
    print()
    with timed(f"listing {PART_CELLS} cells", PART_CELLS, "cells"):
        survey(list_cells([place]))
    with timed(f"listing and cutting {PART_CELLS} cells", PART_CELLS, "cells"):
        first, *_ = plan_shards(list_cells([place]), job, MAX_SHARD)
    hold(list_cells([place]), job)
    describe_boxes()
    read_back(nothing(first), scratch / "ledger")
    for workers in options.workers:
        pass_shards(first, workers)


def hold(cells: "Iterator[Cell]", job: "Job") -> None:
    """Say what shards need while they are under way: in a message, and in the client."""
    from distributed.protocol.pickle import dumps

    from wbc_batch.engine.plan import MAX_SHARD, plan_shards
    from wbc_batch.engine.work import run_shard

    tracemalloc.start()
    held = [(spec, dumps((run_shard, (spec,)))) for spec in plan_shards(cells, job, MAX_SHARD)]
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    spec, packed = held[0]
    print(
        f"a shard of {len(spec.cells)} cells: {len(packed) / 1e6:.2f} MB in a message, "
        f"{memory / len(held) / MIB:.2f} MiB in the client"
    )


def describe_boxes() -> None:
    """Say what GeoJSON takes for each cell of a table of boxes."""
    from wbc_batch.report.geojson import feature
    from wbc_batch.schema import PROBABILITY_COLUMNS

    names = (*PROBABILITY_COLUMNS, "confidence", "margin", "novelty")
    row: dict[Hashable, Any] = dict.fromkeys(names, 0.123456)
    row |= {"cell_id": "0" * 16, "label": "neutrophil"}
    row |= {"x": 12345, "y": 23456, "width": 80, "height": 80}
    with timed(f"{PART_CELLS} cells as GeoJSON", PART_CELLS, "cells"):
        texts = [json.dumps(feature(row)) for _ in range(PART_CELLS)]
    print(f"GeoJSON: {len(texts[0]) + 2} bytes per cell")


def read_back(result: "ShardResult", run_dir: Path) -> None:
    """Commit shards, and read what is committed."""
    from wbc_batch.ledger import commit, committed
    from wbc_batch.schema import SHARDS

    (run_dir / SHARDS).mkdir(parents=True)
    numbered = [
        replace(result, number=number, file=f"{number}.parquet") for number in range(PART_SHARDS)
    ]
    with timed(f"committing {PART_SHARDS} shards", PART_SHARDS, "shards"):
        for one in numbered:
            commit(run_dir / SHARDS, one, b"")
    with timed(f"reading back {PART_SHARDS} committed shards", PART_SHARDS, "shards"):
        committed(run_dir)


def pass_shards(spec: "ShardSpec", workers: int) -> None:
    """Send shards to workers that do nothing."""
    # By its name in a module: what is in __main__ would travel as code.
    import scale
    from distributed import Client, LocalCluster

    from wbc_batch.engine import execute

    some = (replace(spec, number=number) for number in range(PART_SHARDS))
    # Each would take the memory of the whole process for its own, and pause.
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "memory_limit": 0}
    quiet = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        LocalCluster(**local, **quiet, protocol="tcp", host="127.0.0.1") as cluster,
        Client(cluster) as client,
        patch.object(execute, "run_shard", scale.nothing),
        timed(
            f"{PART_SHARDS} shards of {len(spec.cells)} cells through Dask, {workers} workers",
            PART_SHARDS,
            "shards",
        ),
    ):
        execute.execute(client, some, lambda _: None, 600)


def nothing(spec: "ShardSpec") -> "ShardResult":
    from wbc_batch.ledger import ShardResult

    labels = {"neutrophil": len(spec.cells)}
    return ShardResult(
        spec.shard_id, spec.number, "", 0, len(spec.cells), 0, labels, "cpu", "fp32", "torch", 0.0
    )


@contextmanager
def timed(what: str, count: int, unit: str) -> Iterator[None]:
    """Print what the block took, by the clock and of processors."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    taken, busy = time.perf_counter() - clock, time.process_time() - processor
    print(
        f"{what}: {taken:.2f} s, {count / taken:,.0f} {unit}/s "
        f"({1e6 * busy / count:,.1f} us of processor time each)",
        flush=True,
    )


if __name__ == "__main__":
    main()
