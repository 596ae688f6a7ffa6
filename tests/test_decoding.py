"""Processes that read cells for a worker with a GPU; they need none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from runs import wait_for

from wbc_batch.classifier import read_bundle
from wbc_batch.engine.decoding import read_apart
from wbc_batch.errors import ImageError
from wbc_batch.sources import attempt_read, list_cells, prepared_readers

# Reads as a worker does, and tells of its processes; with the argument "die" it kills one of them.
READING = """
import os, signal, sys
from pathlib import Path
import psutil
from wbc_batch.classifier import read_bundle
from wbc_batch.engine.decoding import read_apart
from wbc_batch.sources import list_cells

crops = read_apart(list_cells([sys.argv[1]]), read_bundle().preprocessing, Path(), 2)
next(crops)
children = [process.pid for process in psutil.Process().children()]
print(*children, flush=True)
if sys.argv[2] == "die":
    os.kill(children[0], signal.SIGKILL)
    while True:
        list(read_apart(list_cells([sys.argv[1]]), read_bundle().preprocessing, Path(), 2))
sys.stdin.read()
"""


def test_cells_come_as_they_would_from_threads(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    cells = [*list_cells([slides]), *list_cells([tmp_path]), *list_cells([slides])]
    numbers = read_bundle().preprocessing
    ours = list(read_apart(cells, numbers, Path(), 2))
    expected = [attempt_read(read) for read in prepared_readers(cells, numbers, Path())]
    assert len(ours) == len(expected) == 241
    for one, other in zip(ours, expected, strict=True):
        if isinstance(other, ImageError):
            assert str(one) == str(other)
        else:
            np.testing.assert_array_equal(one, other)


def test_no_process_outlives_its_worker(slides: Path) -> None:
    with _reading(slides, "live") as worker:
        children = _children(worker)
        worker.kill()
    wait_for(lambda: not any(map(psutil.pid_exists, children)))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_process_that_dies_takes_its_worker_along(slides: Path) -> None:
    with _reading(slides, "die") as worker:
        children = _children(worker)
        assert worker.wait(timeout=60) == 1
    wait_for(lambda: not any(map(psutil.pid_exists, children)))


def _reading(slides: Path, how: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", READING, str(slides), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _children(worker: subprocess.Popen) -> list[int]:
    assert worker.stdout
    children = [int(pid) for pid in worker.stdout.readline().split()]
    assert len(children) == 2
    return children
