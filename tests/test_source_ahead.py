"""Cells that are read in processes, as workers with several cores or a GPU do."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from runs import wait_for

from wbc_batch.classifier import read_bundle
from wbc_batch.errors import ImageError
from wbc_batch.sources import (
    ahead,
    attempt_read,
    list_cells,
    prepared_crops,
    prepared_readers,
    refuse_silent,
)
from wbc_batch.sources.pack import pack

# Reads as a worker does, and tells of its processes; with the argument "die" it kills one of them.
READING = """
import os, signal, sys
from pathlib import Path
import psutil
from wbc_batch.classifier import read_bundle
from wbc_batch.sources import list_cells, prepared_crops

def crops():
    cells = 8 * list(list_cells([sys.argv[1]]))
    return prepared_crops(cells, read_bundle().preprocessing, Path(), 2, 64)

going = crops()
next(going)
children = [process.pid for process in psutil.Process().children()]
print(*children, flush=True)
if sys.argv[2] == "die":
    os.kill(children[0], signal.SIGKILL)
    try:
        list(going)
        list(crops())
    except ChildProcessError as error:
        print(error, flush=True)
    print(len(list(crops())), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("memory", [True, False])
def test_cells_come_as_they_would_from_threads(
    slides: Path, tmp_path: Path, memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead.dismiss()
    if not memory:  # but on Linux
        monkeypatch.delattr(os, "memfd_create", raising=False)
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    pack([slides], tmp_path / "crops.zarr")
    some = [*list_cells([slides]), *list_cells([tmp_path]), *list_cells([tmp_path / "crops.zarr"])]
    cells = 3 * some
    numbers = read_bundle().preprocessing
    ours = list(prepared_crops(cells, numbers, Path(), 2, 64))
    expected = [attempt_read(read) for read in prepared_readers(cells, numbers, Path())]
    assert len(ours) == len(expected) == len(cells) > 700
    assert any(isinstance(crop, ImageError) for crop in ours)
    for one, other in zip(ours, expected, strict=True):
        if isinstance(other, ImageError):
            assert str(one) == str(other)
        else:
            np.testing.assert_array_equal(one.pixels, other.pixels)
            np.testing.assert_equal(one.nucleus_size, other.nucleus_size)
    ahead.dismiss()


def test_a_store_is_packed_the_same_by_processes(slides: Path, tmp_path: Path) -> None:
    numbers = read_bundle().preprocessing
    pack([slides], tmp_path / "one.zarr", preprocessing=numbers)
    pack([slides], tmp_path / "two.zarr", preprocessing=numbers, cores=2)
    one, two = (
        {p.relative_to(store): p.read_bytes() for p in store.rglob("*") if p.is_file()}
        for store in (tmp_path / "one.zarr", tmp_path / "two.zarr")
    )
    assert one == two


def test_no_process_outlives_the_one_that_started_it(slides: Path) -> None:
    with _reading(slides, "live") as worker:
        children = _children(worker)
        worker.kill()
    wait_for(lambda: not any(map(psutil.pid_exists, children)))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_process_that_dies_is_told_and_replaced(slides: Path) -> None:
    with _reading(slides, "die") as worker:
        children = _children(worker)
        assert worker.stdout
        assert worker.stdout.readline() == "a process that reads images has died\n"
        assert worker.stdout.readline() == "960\n"
        worker.kill()
    wait_for(lambda: not any(map(psutil.pid_exists, children)))


def test_files_of_the_current_folder_are_no_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "statistics", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the library')\n")
    monkeypatch.chdir(tmp_path)
    ahead.dismiss()
    assert list(ahead.map_apart(sorted, [2, 1, 3], 1)) == [1, 2, 3]
    ahead.dismiss()


def test_a_call_is_read_to_its_end_before_the_next_one() -> None:
    taken: list[str] = []
    next_begun = threading.Event()

    def first() -> Iterator[int]:
        for number in range(12):
            taken.append("first")
            if number == 6:  # room for the next one to push in
                next_begun.wait(0.5)
            yield number

    def second() -> Iterator[int]:
        for number in range(12):
            next_begun.set()
            taken.append("second")
            yield number

    ahead._crew.cache_clear()
    going = ahead.map_apart(sorted, first(), 1, 1)
    next(going)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(list, ahead.map_apart(sorted, second(), 1, 1))
        assert list(going) == list(range(1, 12))
        assert later.result(60) == list(range(12))
    assert taken == 12 * ["first"] + 12 * ["second"]
    ahead._crew.cache_clear()


def test_a_call_that_is_given_up_lets_the_next_one_read() -> None:
    ahead._crew.cache_clear()
    closed = ahead.map_apart(sorted, range(12), 1, 1)
    next(closed)
    closed.close()
    assert list(ahead.map_apart(sorted, [2, 1], 1)) == [1, 2]
    silent = 12 * ["http://127.0.0.1:1/a.zarr"]
    with pytest.raises(ConnectionError) as kept:
        list(ahead.map_apart(refuse_silent, silent, 1, 1))
    assert list(ahead.map_apart(sorted, [2, 1], 1)) == [1, 2]
    assert kept.tb
    ahead._crew.cache_clear()


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


def test_a_store_that_does_not_answer_is_heard_of_through_processes() -> None:
    with pytest.raises(ConnectionError, match="does not answer"):
        list(ahead.map_apart(refuse_silent, ["http://127.0.0.1:1/a.zarr"], 1))


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="nothing here calls what is written invalid")
def test_on_windows_a_process_ends_in_silence_with_the_one_that_started_it() -> None:
    code = """
import wbc_batch.errors
from wbc_batch.sources.ahead import _serve
wbc_batch.errors._ON_WINDOWS = True
_serve(None)
"""
    task = pickle.dumps((list, (1,)))
    with os.fdopen(os.eventfd(0), "wb") as picky:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, input=task, stdout=picky, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, b"")
