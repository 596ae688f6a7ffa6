"""What tests of whole runs share: drawn slides, workers with traps, runs that are stopped."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import pytest
from distributed import Client
from PIL import Image

from wbc_batch import files
from wbc_batch.ledger import committed

# Runs in every worker before work: makes reading slow, and some files deadly.
TRAPS = """
import os, signal, time
from wbc_batch.sources import images

plain = getattr(images, "plain_decode", images.decode_crop)  # a worker may load this twice
images.plain_decode = plain

def decode(data):
    time.sleep(float(os.environ.get("TRAP_SECONDS", "0")))
    if data.startswith(b"KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"ABORT"):
        os.abort()
    if data.startswith(b"HANG"):
        time.sleep(600)
    return plain(data)

images.decode_crop = decode
"""


def draw(path: Path, seed: int) -> None:
    """A purple disc on a pale field: enough of a cell for the engine."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48] - rng.integers(20, 28, (2, 1, 1))
    pixels = np.full((48, 48, 3), (235, 225, 230), np.uint8)
    pixels[np.hypot(y, x) < rng.integers(8, 15)] = rng.integers((90, 30, 120), (140, 80, 180))
    noisy = pixels + rng.integers(0, 20, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.astype(np.uint8)).save(path)


def command(slides: Path, run_dir: Path, *options: str) -> list[str]:
    code = "from wbc_batch.cli import main; main()"
    inputs = ["classify", str(slides), "-o", str(run_dir), "--device", "cpu"]
    return [sys.executable, "-c", code, *inputs, *options]


def powerless() -> list[str]:
    """What goes before a command so that permissions hold for it, also where root runs the tests."""
    if sys.platform == "win32":
        pytest.skip("there nothing is forbidden in this way")
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may read and write everywhere")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def fill_disk_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no room for one of the reports."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no disk that is always full")

    def fresh(path: Path, plain: Callable[[Path], BinaryIO] = files.fresh) -> BinaryIO:
        return Path("/dev/full").open("wb") if path.name == f".{name}.partial" else plain(path)

    monkeypatch.setattr(files, "fresh", fresh)


def contents(folder: Path) -> dict[Path, bytes]:
    """What is in all files of a folder, but for locks."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def hold_open(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody rename, replace or remove a file: as on Windows, while a program has it open."""

    def refusing(plain: Callable[..., object]) -> Callable[..., object]:
        def call(path: Path, *target: Path, **options: bool) -> object:
            if held in (path, *target):
                more = (None, str(*target)) if target else ()
                raise PermissionError(13, "Access is denied", str(path), *more)
            return plain(path, *target, **options)

        return call

    for name in ("rename", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))


def stopped_run(
    slides: Path, run_dir: Path, traps: str, wanted: int, stop: Callable[[subprocess.Popen], None]
) -> tuple[int, str]:
    """Start a slow run, stop it when some shards are done; its exit code and standard error."""
    slow = {"DASK_DISTRIBUTED__WORKER__PRELOAD": traps, "TRAP_SECONDS": "0.08"}
    with subprocess.Popen(
        command(slides, run_dir, "--workers", "1"),
        env=os.environ | slow,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        deadline = time.monotonic() + 60
        while len(committed(run_dir)) < wanted and time.monotonic() < deadline:
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.02)
        stop(run)
        _, errors = run.communicate(timeout=30)
    return run.returncode, errors


@dataclass(frozen=True)
class Cluster:
    """Processes that are not ours."""

    file: Path
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]


@contextmanager
def dask_process(kind: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen]:
    """Run ``dask scheduler`` or ``dask worker`` as somebody else would; killed in the end."""
    code = f"from distributed.cli.dask_{kind} import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def dask_cluster(place: Path, workers: int = 1, **environment: str) -> Iterator[Cluster]:
    """A scheduler that writes a scheduler file, and workers without nannies."""
    file = place / "scheduler.json"
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            dask_process(
                "scheduler", "--scheduler-file", str(file), "--port", "0", "--host", "127.0.0.1",
                "--dashboard-address", "127.0.0.1:0", "--no-show",
            )
        )  # fmt: skip
        wait_for(file.exists)
        options = ("--scheduler-file", str(file), "--no-nanny", "--no-dashboard", "--nthreads", "1")
        crew = [
            stack.enter_context(
                dask_process("worker", *options, "--local-directory", str(place), **environment)
            )
            for _ in range(workers)
        ]
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
        yield Cluster(file, scheduler, crew)


def worker_processes(parent: int | None = None) -> list[psutil.Process]:
    """Processes that work for a run; the resource tracker of Python is none of them."""
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
