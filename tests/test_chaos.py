"""Whatever dies, fills up or hangs: every cell has its row, and the rows are the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count, cycle, islice
from pathlib import Path
from threading import Thread

import dask
import psutil
import pytest
from runs import TRAPS, command, dask_cluster, fill_disk_for, wait_for, worker_processes

from wbc_batch.engine.machine import cores
from wbc_batch.engine.work import FATAL_REASON
from wbc_batch.errors import ExitCode, IncompleteRunError
from wbc_batch.ledger import committed
from wbc_batch.run import classify_paths

pytestmark = pytest.mark.timeout(300)


def rows(run_dir: Path) -> bytes:
    return (run_dir / "cells.csv").read_bytes()


@pytest.fixture
def slow(traps: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that take their time, and may be killed by images."""
    monkeypatch.setenv("TRAP_SECONDS", "0.02")
    with dask.config.set({"distributed.worker.preload": json.loads(traps)}):
        yield


def test_killed_workers_change_nothing(
    slides: Path, undisturbed: Path, slow: None, tmp_path: Path
) -> None:
    killed = []

    def kill(done: int, _: int) -> None:
        if 0 < done < 120 and len(killed) < 3:
            victim = worker_processes()[0]
            victim.kill()
            killed.append(victim.pid)

    summary = classify_paths(
        slides, tmp_path / "run", device="cpu", workers=2, stall_timeout=60, progress=kill
    )
    assert len(killed) == len(set(killed)) >= 2
    assert summary.exit_code == ExitCode.OK
    assert rows(tmp_path / "run") == rows(undisturbed)


@pytest.mark.parametrize("described", [False, True])
def test_a_worker_that_is_long_in_coming_back_keeps_its_place(
    slides: Path, undisturbed: Path, slow: None, tmp_path: Path, described: bool
) -> None:
    killed = []

    def kill(done: int, _: int) -> None:
        if done and not killed:
            (victim,) = worker_processes()
            victim.kill()
            killed.append(victim.pid)

    file = tmp_path / "cluster.yaml"
    file.write_text("{class: LocalCluster, n_workers: 1, threads_per_worker: 1}")
    crew = {"cluster": file} if described else {"workers": 1}
    # Dask gives up a place that is empty when it looks, after 15 s unless it is told otherwise.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}):
        summary = classify_paths(
            slides, tmp_path / "run", device="cpu", stall_timeout=60, progress=kill, **crew
        )
    assert killed
    assert summary.exit_code == ExitCode.OK
    assert rows(tmp_path / "run") == rows(undisturbed)


def test_workers_killed_as_they_start_change_nothing(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    def kill() -> int:
        while not (victims := worker_processes()):
            time.sleep(0.01)
        victims[0].kill()
        return victims[0].pid

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        summary = classify_paths(slides, tmp_path / "run", device="cpu", workers=2)
        assert killed.result(timeout=1)
    assert summary.exit_code == ExitCode.OK
    assert rows(tmp_path / "run") == rows(undisturbed)


def test_an_image_whose_decoding_aborts_becomes_a_row(
    slides: Path, undisturbed: Path, slow: None, tmp_path: Path
) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    (tmp_path / "slides" / "slide-2" / "056.png").write_bytes(b"ABORT")
    (tmp_path / "slides" / "slide-0" / "bad.png").touch()
    summary = classify_paths(
        tmp_path / "slides", tmp_path / "run", device="cpu", workers=2, stall_timeout=60
    )
    assert summary.exit_code == ExitCode.CELL_ERRORS
    lines = rows(tmp_path / "run").replace(str(tmp_path).encode(), str(slides.parent).encode())
    told = {line for line in lines.splitlines() if b',"error",' in line}
    reasons = {
        b"slide-0/bad.png": b"the file is empty",
        b"slide-2/056.png": FATAL_REASON.encode(),
    }
    assert len(told) == len(reasons)
    for member, reason in reasons.items():
        assert any(member in line and reason in line for line in told)

    def without_ids(content: bytes) -> list[bytes]:
        """All but the column `cell_id`, which depends on where the slides lie."""
        lines = [line.partition(b",")[2] for line in content.splitlines()]
        return [line for line in lines if not any(member in line for member in reasons)]

    assert without_ids(lines) == without_ids(rows(undisturbed))


def test_a_full_disk_ends_in_4_and_room_ends_in_the_same_result(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        with pytest.raises(IncompleteRunError, match=r"No space left.*repeat the command") as full:
            classify_paths(slides, disk / "run", device="cpu", workers=1)
        assert full.value.exit_code == ExitCode.INCOMPLETE
        assert (disk / "run" / "run.json").exists()
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        kept = len(committed(disk / "run"))
        assert classify_paths(slides, disk / "run", device="cpu", workers=1).cells == 120
        assert kept < 4
        assert rows(disk / "run") == rows(undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_full_for_the_reports_ends_in_4(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    record = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    with pytest.MonkeyPatch.context() as patch:
        fill_disk_for("cells.csv", patch)
        with pytest.raises(
            IncompleteRunError, match=r"cells\.csv cannot be written \(no space left"
        ):
            classify_paths([slides], run_dir, device="cpu", workers=1)
    assert json.loads((run_dir / "run.json").read_text())["state"] == "incomplete"
    assert classify_paths([slides], run_dir, device="cpu", workers=1).cells == 120


@pytest.mark.timeout(600)
def test_starved_workers_end_in_4_and_memory_ends_in_the_same_result(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    options = {"device": "cpu", "workers": 1, "stall_timeout": 200}
    with pytest.raises(IncompleteRunError, match=r"memory \(--memory-limit") as starved:
        classify_paths(slides, tmp_path / "run", memory_limit="220MiB", **options)
    assert starved.value.exit_code == ExitCode.INCOMPLETE
    assert classify_paths(slides, tmp_path / "run", **options).cells == 120
    assert rows(tmp_path / "run") == rows(undisturbed)


@pytest.mark.parametrize(
    "end", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.chaos)]
)
def test_a_dropped_scheduler_ends_in_4_at_once(
    end: signal.Signals, slides: Path, undisturbed: Path, traps: str, tmp_path: Path
) -> None:
    trap = {"DASK_DISTRIBUTED__WORKER__PRELOAD": traps, "TRAP_SECONDS": "0.02"}
    with dask_cluster(tmp_path, **trap) as cluster:
        dropped = []

        def drop(done: int, _: int) -> None:
            if done and not dropped:
                cluster.scheduler.send_signal(end)
                dropped.append(time.monotonic())

        with pytest.raises(IncompleteRunError, match="connection to the Dask scheduler was lost"):
            classify_paths(
                slides, tmp_path / "run", scheduler_file=cluster.file, device="cpu", progress=drop
            )
        assert time.monotonic() - dropped[0] < 30
    assert classify_paths(slides, tmp_path / "run", device="cpu", workers=1).cells == 120
    assert rows(tmp_path / "run") == rows(undisturbed)


def when_workers_are_asked(run_dir: Path, act: Callable[[], None]) -> Thread:
    """Do something as soon as the workers are asked what they have; they import torch for the answer."""

    def watch() -> None:
        wait_for(lambda: any(run_dir.glob("shards/.probe-*")))
        act()

    thread = Thread(target=watch)
    thread.start()
    return thread


def test_a_scheduler_that_is_lost_before_the_work_ends_in_4(slides: Path, tmp_path: Path) -> None:
    with dask_cluster(tmp_path) as cluster:
        watching = when_workers_are_asked(tmp_path / "run", cluster.scheduler.kill)
        with pytest.raises(IncompleteRunError, match="connection to the Dask scheduler was lost"):
            classify_paths(slides, tmp_path / "run", scheduler_file=cluster.file, device="cpu")
        watching.join()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "incomplete"


def test_a_worker_that_dies_before_the_work_leaves_it_to_the_others(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with dask_cluster(tmp_path, workers=2) as cluster:
        watching = when_workers_are_asked(tmp_path / "run", cluster.workers[0].kill)
        classify_paths(slides, tmp_path / "run", scheduler_file=cluster.file, device="cpu")
        watching.join()
    assert rows(tmp_path / "run") == rows(undisturbed)


def test_nobody_waits_for_workers_that_left(slides: Path, traps: str, tmp_path: Path) -> None:
    trap = {"DASK_DISTRIBUTED__WORKER__PRELOAD": traps, "TRAP_SECONDS": "0.02"}
    with dask_cluster(tmp_path, **trap) as cluster:

        def leave(done: int, _: int) -> None:
            if done:
                cluster.workers[0].terminate()

        with pytest.raises(IncompleteRunError, match="no shard was finished for 4 s"):
            classify_paths(
                slides, tmp_path / "run", scheduler_file=cluster.file, stall_timeout=4,
                device="cpu", progress=leave,
            )  # fmt: skip
        assert cluster.scheduler.poll() is None


def test_no_progress_ends_in_a_clear_message(slides: Path, slow: None, tmp_path: Path) -> None:
    shutil.copytree(slides / "slide-0", tmp_path / "slides")
    (tmp_path / "slides" / "000.png").write_bytes(b"HANG")
    with pytest.raises(IncompleteRunError, match="no shard was finished for 6 s") as caught:
        classify_paths(tmp_path / "slides", tmp_path / "run", workers=1, stall_timeout=6)
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "incomplete"


# --- the long ones: pytest -m chaos


@pytest.fixture(scope="module")
def many(real_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten thousand files: real cells of two laboratories, linked."""
    place = tmp_path_factory.mktemp("many")
    originals = []
    for folder in ("pbc/val", "raabin"):
        originals += sorted(Path(shutil.copytree(real_cells / folder, place / folder)).rglob("*.*"))
    for number, original in enumerate(islice(cycle(originals), 10_000)):
        slide = place / "slides" / f"slide-{number // 100:03d}"
        slide.mkdir(parents=True, exist_ok=True)
        (slide / f"{number:05d}{original.suffix}").hardlink_to(original)
    return place / "slides"


@pytest.fixture(scope="module")
def many_undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("many-runs") / "undisturbed"
    assert subprocess.run(command(many, run_dir, "--workers", "2")).returncode == ExitCode.OK
    return run_dir


def cells_done(run_dir: Path) -> int:
    return sum(result.cells for result in committed(run_dir))


def wait_for_more(run: subprocess.Popen, run_dir: Path) -> bool:
    """Wait until more cells are done than now; False if the run ends before."""
    before = cells_done(run_dir)
    while cells_done(run_dir) == before:
        if run.poll() is not None:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.chaos
@pytest.mark.realdata
@pytest.mark.timeout(1800)
def test_workers_killed_throughout_a_long_run(
    many: Path, many_undisturbed: Path, tmp_path: Path
) -> None:
    """One dies as the workers start, then one a random time after each shard that is done."""
    chance = random.Random(1)
    killed = set()
    with subprocess.Popen(command(many, tmp_path / "run", "--workers", "2")) as run:
        while True:
            if victims := worker_processes(run.pid):
                victim = chance.choice(victims)
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.add(victim.pid)
            if not wait_for_more(run, tmp_path / "run"):
                break
            time.sleep(chance.uniform(0, 3))
    assert len(killed) >= 5
    assert run.returncode == ExitCode.OK
    assert rows(tmp_path / "run") == rows(many_undisturbed)


@pytest.mark.chaos
@pytest.mark.realdata
@pytest.mark.timeout(1800)
def test_clients_killed_again_and_again(many: Path, many_undisturbed: Path, tmp_path: Path) -> None:
    """Three die whenever they die, the others a random time after a shard is done."""
    chance = random.Random(2)
    done = []
    for attempt in count():
        with subprocess.Popen(command(many, tmp_path / "run", "--workers", "2")) as run:
            if attempt < 3:
                time.sleep(chance.uniform(1, 15))
            elif wait_for_more(run, tmp_path / "run"):
                time.sleep(chance.uniform(0, 3))
            run.kill()
        if run.returncode != -signal.SIGKILL:
            break
        done.append(cells_done(tmp_path / "run"))
    assert run.returncode == ExitCode.OK
    assert done == sorted(done)
    assert len(set(done)) >= 3
    assert rows(tmp_path / "run") == rows(many_undisturbed)


@pytest.mark.skipif(cores() < 2, reason="a worker of one core reads on a thread")
def test_a_process_that_reads_for_a_worker_dies_of_one_image_only(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TRAPS)  # reaches the processes of workers, too
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for number in range(20):
        shutil.copytree(slides, tmp_path / "slides" / str(number), copy_function=os.link)
    deadly = tmp_path / "slides" / "7" / "slide-2" / "new.png"
    deadly.write_bytes(b"ABORT")
    summary = classify_paths(
        tmp_path / "slides", tmp_path / "run", device="cpu", workers=1, stall_timeout=100
    )
    assert (summary.cells, summary.errors) == (2401, 1)
    (told,) = [line for line in rows(tmp_path / "run").splitlines() if b',"error",' in line]
    assert b"7/slide-2/new.png" in told
    assert FATAL_REASON.encode() in told
