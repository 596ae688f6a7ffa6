"""How long a report of very many cells takes, how large its page is, and how soon a browser shows it.

    python benchmarks/report.py --cells 1000000 --groups 50 --pictures FOLDER

Makes a run of that many rows in a scratch folder; their pictures are the images of FOLDER, over and
over (without it, the page has none). Prints one line per figure. The browser is Chromium, where there is one.
"""

import argparse
import io
import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wbc_batch.classifier import read_bundle
from wbc_batch.ledger import ShardResult, commit
from wbc_batch.rebuild import rebuild_report
from wbc_batch.report import confusion_of
from wbc_batch.schema import CLASSES, PROBABILITY_COLUMNS, SHARDS, UNIDENTIFIED

SHARD = 4096
SHARES = (0.005, 0.03, 0.28, 0.06, 0.575, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the run in this folder")
    options = parser.parse_args()
    scratch = options.keep or Path(tempfile.mkdtemp(prefix="wbc-report-"))
    try:
        write_run(scratch, options.cells, options.groups, options.pictures)
        begun = time.perf_counter()
        page = rebuild_report(scratch, force=True)
        print(f"report of {options.cells:,} cells: {time.perf_counter() - begun:.1f} s")
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        print(f"page: {page.stat().st_size / 1e6:.1f} MB")
        open_page(page)
    finally:
        if not options.keep:
            shutil.rmtree(scratch, ignore_errors=True)


def write_run(run_dir: Path, cells: int, groups: int, pictures: Path | None) -> None:
    rng = np.random.default_rng(0)
    images = sorted(path for path in pictures.rglob("*.*") if path.is_file()) if pictures else []
    members = [str(path) for path in images] or ["no picture"]
    (run_dir / SHARDS).mkdir(parents=True, exist_ok=True)
    labels = np.array([*CLASSES, UNIDENTIFIED])
    for number, start in enumerate(range(0, cells, SHARD)):
        places = np.arange(start, min(start + SHARD, cells))
        count = len(places)
        label = labels[rng.choice(6, count, p=SHARES)]
        confidence = rng.beta(8, 1, count).astype("f4")
        table = pa.table(
            {
                "cell_id": [f"{place:016x}" for place in places],
                "source": pa.array([""] * count),
                "member": [members[place % len(members)] for place in places],
                "index": pa.array([None] * count, pa.int64()),
                "group": [f"slide-{place * groups // cells + 1:03d}" for place in places],
                "status": ["ok"] * count,
                "label": label,
                "predicted": np.where(label == UNIDENTIFIED, CLASSES[2], label),
                "confidence": confidence,
                "margin": confidence,
                "novelty": rng.random(count).astype("f4"),
                **{name: rng.random(count).astype("f4") for name in PROBABILITY_COLUMNS},
                "error": pa.array([None] * count, pa.string()),
            }
        )
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
        result = ShardResult(
            *(f"{number}", number, f"{number:06d}-{number}.parquet", file.tell(), count, 0, {}),
            *("cpu", "fp32", "torch", 1.0),
        )
        commit(run_dir / SHARDS, result, file.getvalue())
    bundle = read_bundle()
    confusion = confusion_of(bundle.metrics)
    model = {
        "name": "benchmark",
        "preprocessing": vars(bundle.preprocessing),
        "confusion": confusion and confusion.to_record(),
    }
    record = {"state": "finished", "cells": cells, "model": model}
    (run_dir / "run.json").write_text(json.dumps(record))


def open_page(page: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no Chromium here")
        return
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, "--headless", "--no-sandbox", f"--user-data-dir={profile}"]
        for what, address in (("an empty page", "about:blank"), ("the page", page.as_uri())):
            times = []
            for _ in range(3):
                begun = time.perf_counter()
                picture = f"--screenshot={profile}/page.png"
                subprocess.run([*command, picture, address], capture_output=True, check=True)
                times.append(time.perf_counter() - begun)
            print(
                f"Chromium starts, opens {what}, takes a picture and ends: {sorted(times)[1]:.1f} s"
            )


if __name__ == "__main__":
    main()
