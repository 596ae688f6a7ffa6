"""Shards, the ledger, workers and what happens when they die."""

import asyncio
import errno
import gc
import json
import os
import pkgutil
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import KilledWorker
from runs import command, contents, draw, hold_open, powerless, stopped_run

from wbc_batch.classifier import Classifier, Predictions, read_bundle
from wbc_batch.classifier.preprocessing import CanonicalCrop
from wbc_batch.engine import work
from wbc_batch.engine.clusters import local_workers
from wbc_batch.engine.execute import execute, find_fatal
from wbc_batch.engine.plan import (
    Job,
    ShardSpec,
    model_digest,
    plan_shards,
    shard_size,
    survey,
    verified,
)
from wbc_batch.engine.run_folder import (
    Settings,
    clear,
    locked,
    recorded,
    to_continue,
    write_record,
)
from wbc_batch.engine.work import FATAL_REASON, WorkerError, attempt, run_shard
from wbc_batch.errors import (
    ClusterError,
    ExitCode,
    ImageError,
    IncompleteRunError,
    ModelError,
    RunError,
    UnreachableError,
)
from wbc_batch.files import scratch, write_file
from wbc_batch.ledger import ShardResult, commit, committed, committed_shards
from wbc_batch.rebuild import rebuild_report
from wbc_batch.run import classify_paths
from wbc_batch.schema import CELL_COLUMNS, CLASSES, SHARDS, UNIDENTIFIED
from wbc_batch.sources import Cell, ahead, list_cells, prepared_crops

pytestmark = pytest.mark.usefixtures("blank_drawings")


def results(spec: ShardSpec) -> pd.DataFrame:
    return pd.read_parquet(Path(spec.job.shards) / run_shard(spec).file)


# --- plan


def cells(count: int) -> list[Cell]:
    return [Cell("slides", f"{number:06d}.png", None, "slides") for number in range(count)]


def test_shards_hold_every_cell_once_and_in_order(job: Job) -> None:
    shards = list(plan_shards(iter(cells(1000)), job, 300))
    assert [len(shard.cells) for shard in shards] == [300, 300, 300, 100]
    assert [shard.number for shard in shards] == [0, 1, 2, 3]
    assert [cell for shard in shards for cell in shard.cells] == cells(1000)


def test_planning_takes_no_more_cells_than_it_must(job: Job) -> None:
    taken = []
    stream = (taken.append(cell) or cell for cell in cells(1000))
    next(plan_shards(stream, job, 10))
    assert len(taken) == 10


def test_shard_ids_depend_on_cells_and_on_what_computes_them_only(job: Job) -> None:
    def first_id(some: Sequence[Cell], its_job: Job) -> str:
        return next(plan_shards(some, its_job, 50)).shard_id

    known = first_id(cells(100), job)
    assert known == first_id(cells(100), replace(job, threads=7, device="cuda", shards="elsewhere"))
    assert known != first_id(cells(100), replace(job, model_digest="other"))
    assert known != first_id(cells(100), replace(job, precision="bf16"))
    assert known != first_id(cells(100), replace(job, backend="torch"))
    assert known != first_id(cells(100)[1:], job)


@pytest.mark.parametrize("change", ["sha256", "temperature", "preprocessing", "rejection"])
def test_everything_that_decides_is_in_the_digest(change: str) -> None:
    bundle = read_bundle()
    changed = {
        "sha256": "0" * 64,
        "temperature": bundle.temperature + 1,
        "preprocessing": replace(bundle.preprocessing, context=9.0),
        "rejection": replace(bundle.rejection, min_confidence=0.123),
    }
    assert model_digest(replace(bundle, **{change: changed[change]})) != model_digest(bundle)


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("count", [1, 100, 5000, 10**7])
def test_all_workers_have_work(count: int, workers: int) -> None:
    size = shard_size(count, workers)
    assert 1 <= size <= 4096
    if count >= 64 * workers:
        assert count / size >= 2 * workers


def test_an_input_that_changes_is_noticed() -> None:
    listing = survey(cells(100))
    assert list(verified(cells(100), listing)) == cells(100)
    with pytest.raises(RunError, match="100 cells were listed at first, 99 later"):
        list(verified(cells(99), listing))
    with pytest.raises(RunError, match="changed"):
        list(verified(reversed(cells(100)), listing))


# --- work


def test_a_shard_has_a_row_per_cell_in_order(job: Job, slides: Path) -> None:
    (spec,) = plan_shards(list_cells([slides]), job, 200)
    rows = results(spec)
    assert tuple(rows.columns) == CELL_COLUMNS
    assert list(rows["cell_id"]) == [cell.cell_id for cell in spec.cells]
    assert list(rows["member"]) == sorted(rows["member"])
    assert set(rows["label"]) <= {*CLASSES, UNIDENTIFIED}
    assert set(rows["status"]) == {"ok"}
    assert rows["error"].isna().all()
    assert rows.filter(like="prob_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


def test_a_cell_gets_the_same_numbers_in_any_shard(job: Job, slides: Path) -> None:
    (whole,) = plan_shards(list_cells([slides]), job, 200)
    alone = plan_shards(list_cells([slides]), replace(job, threads=1), 29)
    pd.testing.assert_frame_equal(
        results(whole), pd.concat(map(results, alone), ignore_index=True), check_exact=True
    )


def test_a_shard_is_read_while_the_one_before_is_classified(
    job: Job, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = plan_shards(list_cells([slides]), job, 60)
    classify, read = Classifier.predict_prepared, Event()
    later: list[Future[ShardResult]] = []

    def reading(cells: Sequence[Cell], *arguments: Any) -> Iterator[CanonicalCrop | ImageError]:
        for crop in prepared_crops(cells, *arguments):
            if cells[0] == second.cells[0]:
                read.set()
            yield crop

    def classifying(self: Classifier, crops: np.ndarray, *arguments: Any) -> Predictions:
        if len(crops) and not later:
            later.append(pool.submit(run_shard, second))
            assert read.wait(30)
        return classify(self, crops, *arguments)

    monkeypatch.setattr(work, "prepared_crops", reading)
    monkeypatch.setattr(Classifier, "predict_prepared", classifying)
    with ThreadPoolExecutor(1) as pool:
        assert run_shard(first).cells == 60
    assert later[0].result().cells == 60


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"not an image at all",
    "notes": b"no suffix either",
    "truncated.png": None,
    "random.tif": np.random.default_rng(3).bytes(3000),
}


def test_bad_files_are_rows_and_spoil_no_neighbour(job: Job, slides: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(slides / "slide-0", mixed / "a")
    (clean,) = plan_shards(list_cells([mixed]), job, 200)
    expected = results(clean)
    whole = next((mixed / "a").iterdir()).read_bytes()
    for name, content in BROKEN.items():
        (mixed / "a" / f"01{name}").write_bytes(whole[:999] if content is None else content)
    (spec,) = plan_shards(list_cells([mixed]), job, 200)
    rows = results(spec)
    bad = rows[rows["status"] == "error"]
    assert sorted(Path(member).name for member in bad["member"]) == sorted(f"01{n}" for n in BROKEN)
    assert bad["error"].str.len().min() > 10
    assert bad[["label", "predicted", "confidence", "prob_basophil"]].isna().all(axis=None)
    good = rows[rows["status"] == "ok"].reset_index(drop=True)
    pd.testing.assert_frame_equal(good, expected, check_exact=True)


def test_a_worker_that_cannot_compute_as_the_run_does_is_named(job: Job, slides: Path) -> None:
    (spec,) = plan_shards(list_cells([slides / "slide-0"]), replace(job, precision="fp64"), 50)
    with pytest.raises(ClusterError, match=rf"on .* \(process {os.getpid()}\) cannot .*'fp64'"):
        run_shard(spec)


def test_a_shard_of_bad_files_only_is_a_shard(job: Job, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").touch()
    (spec,) = plan_shards(list_cells([tmp_path / "bad"]), job, 10)
    assert run_shard(spec).labels == {}
    assert list(results(spec)["error"]) == ["the file is empty"]


def test_a_name_that_no_text_can_hold_is_a_row(job: Job, tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    # Half of a pair, as Windows allows it in a name.
    odd = [Cell(str(tmp_path), name, None, "g") for name in ("1.png", "a\ud83d.png")]
    (spec,) = plan_shards(odd, job, 10)
    rows = results(spec)
    assert list(rows["member"]) == ["1.png", r"a\xed\xa0\xbd.png"]
    assert list(rows["status"]) == ["error", "error"]
    assert rows["cell_id"].nunique() == 2


def test_a_shard_that_fails_lets_the_next_one_read(
    job: Job, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Classifier, crops: np.ndarray, *arguments: Any) -> Predictions:
        if len(crops):
            raise ModelError("what is wrong")
        return classify(self, crops, *arguments)

    classify = Classifier.predict_prepared
    monkeypatch.setattr(Classifier, "predict_prepared", failing)
    (spec,) = plan_shards(8 * list(list_cells([slides])), job, 2000)
    with pytest.raises(ModelError, match="what is wrong") as kept:
        run_shard(spec)
    assert not ahead._turn.locked(), kept.tb
    ahead._crew.cache_clear()


@pytest.mark.parametrize("kind", ["crops.zarr", "stack.tif"])
def test_a_store_that_is_gone_makes_no_rows(kind: str, job: Job, tmp_path: Path) -> None:
    store = tmp_path / kind
    crops = np.full((4, 40, 40, 3), 200, np.uint8)
    if kind == "stack.tif":
        tifffile.imwrite(store, crops, photometric="rgb")
    else:
        zarr.create_array(store, data=crops)
    (spec,) = plan_shards(list_cells([store]), job, 10)
    store.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"does not see .*{kind}"):
        run_shard(spec)
    assert not list((tmp_path / SHARDS).iterdir())


def test_a_folder_that_goes_while_it_is_read_makes_no_rows(
    job: Job, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "slide"
    shutil.copytree(slides / "slide-0", folder)
    (spec,) = plan_shards(list_cells([folder]), job, 200)

    def reading(*arguments: Any) -> Iterator[CanonicalCrop | ImageError]:
        folder.rename(tmp_path / "elsewhere")
        return prepared_crops(*arguments)

    monkeypatch.setattr(work, "prepared_crops", reading)
    with pytest.raises(FileNotFoundError, match="does not see"):
        run_shard(spec)


@pytest.mark.parametrize("left", [(), ("other.txt", "slide-1")])
def test_a_folder_that_is_not_mounted_any_more_makes_no_rows(
    left: tuple[str, ...], job: Job, slides: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "disk"
    shutil.copytree(slides / "slide-0", folder / "slide-0")
    (spec,) = plan_shards(list_cells([folder]), job, 200)
    shutil.rmtree(folder / "slide-0")
    for name in left:
        (folder / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"the worker (sees nothing in|does not see)"):
        run_shard(spec)
    assert not list(Path(job.shards).iterdir())


@pytest.mark.parametrize(("number", "rows"), [(errno.ESTALE, False), (errno.EIO, True)])
def test_a_file_system_that_does_not_answer_for_now_makes_no_rows(
    number: int, rows: bool, job: Job, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = plan_shards(list_cells([slides / "slide-0"]), job, 200)
    read, failures = Path.read_bytes, iter([OSError(number, os.strerror(number))])

    def fail_once(path: Path) -> bytes:
        if slides in path.parents:
            for failure in failures:
                raise failure
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail_once)
    if rows:
        assert run_shard(spec).errors == 1
        return
    with pytest.raises(ConnectionError, match=r"slide-0.*cannot be read for now: stale file"):
        attempt(version("wbc-napari"), run_shard, spec)
    assert not list(Path(job.shards).iterdir())
    assert run_shard(spec).errors == 0


def test_files_that_go_one_by_one_are_rows(job: Job, slides: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(slides / "slide-0", tmp_path / "disk"))
    (spec,) = plan_shards(list_cells([folder]), job, 200)
    for cell in spec.cells[1:]:
        (folder / cell.member).unlink()
    assert run_shard(spec).errors == len(spec.cells) - 1


def test_file_names_that_are_not_utf8_are_rows(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    draw(folder / "1.png", 1)
    os.rename(folder / "1.png", os.fsencode(folder) + b"/caf\xe9.png")  # noqa: PTH104
    (spec,) = plan_shards(list_cells([folder]), job, 10)
    rows = results(spec)
    assert list(rows["member"]) == ["caf\\xe9.png"]
    assert list(rows["status"]) == ["ok"]


def test_reasons_that_name_files_that_are_not_utf8_are_rows(job: Job, tmp_path: Path) -> None:
    draw(tmp_path / "1.png", 1)
    (tmp_path / "t.csv").write_bytes(b"path\n1.png\nzelle_\xe4.png\n")
    (spec,) = plan_shards(list_cells([tmp_path / "t.csv"]), job, 10)
    rows = results(spec)
    assert list(rows["status"]) == ["ok", "error"]
    assert "there is no file zelle_\\xe4.png" in rows["error"][1]


def test_deadly_cells_are_not_read(job: Job, slides: Path) -> None:
    (spec,) = plan_shards(list_cells([slides / "slide-0"]), job, 200)
    rows = results(replace(spec, fatal=(3,)))
    assert list(rows.index[rows["status"] == "error"]) == [3]
    assert rows["error"][3] == FATAL_REASON


def test_another_model_on_a_worker_is_refused(job: Job, slides: Path) -> None:
    (spec,) = plan_shards(list_cells([slides]), replace(job, model_digest="0" * 32), 200)
    with pytest.raises(ModelError, match="a different model on the workers"):
        run_shard(spec)


@pytest.mark.parametrize(
    ("raised", "arrives"), [(ModelError, ModelError), (OSError, OSError), (KeyError, WorkerError)]
)
def test_errors_of_workers_can_travel(raised: type[Exception], arrives: type[Exception]) -> None:
    class Unknown(Exception):
        """Cannot be pickled."""

    def fail() -> None:
        try:
            raise Unknown
        except Unknown as error:
            raise raised("what is wrong") from error

    with pytest.raises(arrives, match="what is wrong") as caught:
        attempt(version("wbc-napari"), fail)
    assert isinstance(loads(dumps(caught.value)), arrives)


@pytest.mark.parametrize(
    ("told", "nanny", "ends"),
    [
        ("CUDA error: an illegal memory access was encountered", "tcp://127.0.0.1:1", True),
        ("CUDA error: an illegal memory access was encountered", None, False),
        ("CUDA error: out of memory", "tcp://127.0.0.1:1", False),
    ],
)
def test_a_worker_whose_gpu_is_broken_ends_if_it_is_replaced(
    told: str, nanny: str | None, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failed(RuntimeError):
        """As torch raises it since 2.8."""

    def fail() -> None:
        raise Failed(told)

    monkeypatch.setattr(torch, "AcceleratorError", Failed, raising=False)
    monkeypatch.setattr(work.os, "_exit", sys.exit)
    monkeypatch.setattr(work, "get_worker", lambda: SimpleNamespace(nanny=nanny))
    with pytest.raises(SystemExit if ends else WorkerError):
        attempt(version("wbc-napari"), fail)


# --- ledger


def test_only_committed_shards_count(job: Job, slides: Path, tmp_path: Path) -> None:
    done = [run_shard(spec) for spec in plan_shards(list_cells([slides]), job, 50)]
    assert committed(tmp_path) == done
    assert committed_shards(tmp_path) == [tmp_path / SHARDS / result.file for result in done]
    (tmp_path / SHARDS / done[0].file).with_suffix(".json").unlink()
    (tmp_path / SHARDS / done[1].file).write_bytes(b"cut off")
    assert committed(tmp_path) == done[2:]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "run.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "run.json", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


# --- run folder

SETTINGS = Settings("1.0", "default (ab)", "/slides", "10 (cd)", "auto", "auto", "torch")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="in use by another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there locks are of another kind")
def test_a_lock_that_was_left_where_there_are_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".lock").touch()
    with (
        pytest.raises(RunError, match=r"if nothing else is running, remove .*\.lock, which"),
        locked(tmp_path),
    ):
        pass
    assert not recwarn.list


def test_temporary_files_that_cannot_be_removed_spoil_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def rmdir(path: str, **options: object) -> None:
        kept.append(path)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    with monkeypatch.context() as patch, scratch() as place:
        Path(place, "open").touch()
        patch.setattr("os.rmdir", rmdir)
    assert kept
    shutil.rmtree(place)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(RunError, match="not empty"), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_other_peoples_shards_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / SHARDS).mkdir()
    ours = tmp_path / SHARDS / "000000-0123456789abcdef.parquet"
    ours.touch()
    with locked(tmp_path):  # a run was killed before it wrote run.json
        pass
    theirs = tmp_path / SHARDS / "train.json"
    theirs.touch()
    with pytest.raises(RunError, match="not empty"), locked(tmp_path):
        pass
    write_record(tmp_path, {})
    with locked(tmp_path):
        clear(tmp_path)
    assert theirs.exists()
    assert not ours.exists()


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(RunError, match="cannot be used for results"), locked(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [(SHARDS, False), ("plots", False), ("geojson", False), ("cells.csv", True)],
)
def test_what_is_in_the_way_of_results_is_said_before_the_work(
    tmp_path: Path, name: str, is_folder: bool
) -> None:
    write_record(tmp_path, {})
    (tmp_path / name).mkdir() if is_folder else (tmp_path / name).touch()
    with pytest.raises(RunError, match=f"{name} is in the way of a f"), locked(tmp_path):
        pass
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(("place", "options"), [("run", ()), ("run/shards", ("--force",))])
def test_a_folder_that_is_read_only_is_refused_and_stays_as_it_is(
    place: str, options: tuple[str, ...], slides: Path, tmp_path: Path
) -> None:
    with locked(tmp_path / "run"):
        write_record(tmp_path / "run", {"state": "interrupted"})
    (tmp_path / "run" / "shards" / "000000-0123456789abcdef.parquet").touch()
    before = sorted((tmp_path / "run").rglob("*"))
    (tmp_path / place).chmod(0o555)
    whole = [*powerless(), *command(slides / "slide-0", tmp_path / "run", *options)]
    run = subprocess.run(whole, capture_output=True, text=True)
    (tmp_path / place).chmod(0o755)
    assert run.returncode == ExitCode.FATAL
    assert f"{tmp_path / place} cannot be used for results (permission denied)" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["cells.csv", "run.json", "shards/000000-0123456789abcdef.parquet"]
)
def test_a_run_with_a_file_that_a_program_keeps_open_is_left_whole(
    name: str, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    with locked(run_dir):
        write_record(run_dir, {"state": "finished", "cells": 0})
    for other in ("cells.csv", "report.html", "shards/000000-0123456789abcdef.parquet"):
        (run_dir / other).touch()
    before = contents(run_dir)
    hold_open(run_dir / name, monkeypatch)
    with pytest.raises(RunError, match=rf"{re.escape(name)} cannot be replaced .*; close the") as e:
        classify_paths([slides / "slide-0"], run_dir, device="cpu", force=True)
    assert e.value.exit_code == ExitCode.INCOMPLETE
    assert contents(run_dir) == before


def test_a_folder_whose_path_leaves_no_room_for_shards_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch
    most = len(str(tmp_path / SHARDS)) + 60  # as on Windows, where all of a path has 259 letters

    def refused(path: Path, *args: Any, **options: Any) -> None:
        if len(str(path)) > most:
            raise FileNotFoundError(2, "The system cannot find the path specified", str(path))
        touch(path, *args, **options)

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(RunError, match="cannot be used for results"), locked(tmp_path):
        pass


def test_a_run_of_which_a_part_is_removed_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, {"state": "finished"})
    (tmp_path / "cells.csv").touch()
    monkeypatch.setattr("wbc_batch.engine.run_folder.try_replacing", lambda _: None)
    hold_open(tmp_path / "cells.csv", monkeypatch)  # a moment later
    with pytest.raises(PermissionError), locked(tmp_path):
        clear(tmp_path)
    monkeypatch.undo()
    with locked(tmp_path):
        clear(tmp_path)
    assert not (tmp_path / "cells.csv").exists()


def test_shards_that_may_not_be_read_are_not_done_anew(slides: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    whole = [*powerless(), *command(slides / "slide-0", run_dir, "--workers", "1")]
    with locked(run_dir):
        write_record(run_dir, {"state": "interrupted"})
    note = run_dir / SHARDS / "000000-0123456789abcdef.json"
    note.write_text("{}")
    note.chmod(0)
    run = subprocess.run(whole, capture_output=True, text=True)
    assert run.returncode == ExitCode.INCOMPLETE
    assert f"{note} cannot be read (permission denied)" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert note.exists()


def test_an_unfinished_run_goes_on_with_the_same_settings_only(
    job: Job, slides: Path, tmp_path: Path
) -> None:
    settings = {field: getattr(SETTINGS, field) for field in SETTINGS.__slots__}
    with locked(tmp_path):
        write_record(tmp_path, {"state": "interrupted", "settings": settings})
        (spec,) = plan_shards(list_cells([slides / "slide-0"]), job, 50)
        run_shard(spec)
        assert to_continue(tmp_path, SETTINGS)["state"] == "interrupted"
        changed = replace(SETTINGS, model="other (ef)")
        with pytest.raises(RunError, match=r"model was 'default \(ab\)' and is now 'other \(ef\)'"):
            to_continue(tmp_path, changed)
        with pytest.raises(RunError, match="backend was 'torch' and is now 'openvino'"):
            to_continue(tmp_path, replace(SETTINGS, backend="openvino"))
        assert len(committed(tmp_path)) == 1


def test_a_run_whose_input_is_named_otherwise_says_how_it_was_named(
    job: Job, slides: Path, tmp_path: Path
) -> None:
    settings = {field: getattr(SETTINGS, field) for field in SETTINGS.__slots__}
    record = {"state": "finished", "cells": 99, "settings": settings, "inputs": ["my slides"]}
    record |= {"command": "wbc-batch classify 'my slides' -o run", "directory": str(Path.cwd())}
    with locked(tmp_path):
        write_record(tmp_path, record)
        with pytest.raises(RunError) as told:
            to_continue(tmp_path, replace(SETTINGS, cells="10 (ef)"))
        assert (
            "is now '10 (ef)', the same number: give the input exactly as before, 'my slides'); to fin"
            in str(told.value)
        )
        assert "repeat the old command: wbc-batch classify 'my slides' -o run; otherwise" in str(
            told.value
        )
        with pytest.raises(RunError, match=r"is now '11 \(ef\)'\); to finish it"):
            to_continue(tmp_path, replace(SETTINGS, cells="11 (ef)"))


def test_a_run_with_many_inputs_says_in_short_where_they_differ(tmp_path: Path) -> None:
    names = [f"/slides/slide-{number:04d}.jpg" for number in range(5000)]
    settings = {field: getattr(SETTINGS, field) for field in SETTINGS.__slots__}
    record = {"state": "finished", "cells": 5000, "inputs": names, "command": " ".join(names)}
    write_record(tmp_path, record | {"settings": settings | {"inputs": ", ".join(names)}})
    names[4000] = "/slides/other.jpg"
    with pytest.raises(RunError) as told:
        to_continue(tmp_path, replace(SETTINGS, inputs=", ".join(names), cells="10 (ef)"))
    assert len(str(told.value)) < 2000
    assert "slide-3999.jpg, /slides/slide-4000.jpg, /slides/slide-4001.jpg, " in str(told.value)
    assert "slide-3999.jpg, /slides/other.jpg, /slides/slide-4001.jpg, " in str(told.value)
    assert f'exactly as before, see "inputs" in {tmp_path / "run.json"}' in str(told.value)
    assert f'repeat the old command: see "command" in {tmp_path / "run.json"}' in str(told.value)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (UnreachableError("the file system does not answer"), "incomplete"),
        (IncompleteRunError("the scheduler is lost"), "incomplete"),
        (ClusterError("no workers"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_the_record_says_how_a_run_ended(error: BaseException, state: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(tmp_path, {}):
        raise error
    assert json.loads((tmp_path / "run.json").read_text())["state"] == state


def test_a_run_that_did_nothing_yet_binds_nobody(tmp_path: Path) -> None:
    settings = {field: getattr(SETTINGS, field) for field in SETTINGS.__slots__}
    with locked(tmp_path):
        write_record(tmp_path, {"state": "failed", "settings": settings, "shard_cells": 7})
        (tmp_path / SHARDS / "000000-0123456789abcdef.parquet").touch()  # not committed
        assert to_continue(tmp_path, SETTINGS)["shard_cells"] == 7
        assert to_continue(tmp_path, replace(SETTINGS, device="cuda")) is None


def test_a_record_with_other_peoples_settings_is_that_of_another_run(
    job: Job, slides: Path, tmp_path: Path
) -> None:
    with locked(tmp_path):
        write_record(tmp_path, {"state": "interrupted", "settings": ["auto"]})
        (spec,) = plan_shards(list_cells([slides / "slide-0"]), job, 50)
        run_shard(spec)
        with pytest.raises(RunError, match="version was 'not recorded'"):
            to_continue(tmp_path, SETTINGS)


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    with locked(tmp_path):
        write_record(tmp_path, {"state": "finished", "cells": 0})
        with pytest.raises(RunError, match=r"finished run.*--force"):
            to_continue(tmp_path, SETTINGS)


# --- execute


@pytest.mark.parametrize("fatal", [[], [0], [99], [3, 4, 70], list(range(20, 40))])
@pytest.mark.parametrize("accident", [None, 0, 50, 99])
def test_exactly_the_deadly_cells_are_found(fatal: list[int], accident: int | None) -> None:
    accidents = {accident}  # cells at which a process dies once, for another reason

    def fatal_in(positions: Sequence[int]) -> int | None:
        dead = next((p for p in positions if p in fatal or p in accidents), None)
        accidents.discard(dead)
        return dead

    assert find_fatal(fatal_in, range(100)) == fatal


class Ended:
    """A future of Dask whose task has ended; `lost` says how its result went with its worker, if it did."""

    key = "task"

    def __init__(self, outcome: Any, lost: str | None) -> None:
        self._outcome = outcome
        self._lost = lost
        self.status = "lost" if lost == "noticed" else "finished"

    def cancelled(self) -> bool:
        return False

    def add_done_callback(self, call: Callable[["Ended"], None]) -> None:
        call(self)

    def exception(self, timeout: float | None = None) -> Exception | None:
        if self.status == "lost":
            return self.result(timeout)
        return self._outcome if isinstance(self._outcome, Exception) else None

    def result(self, timeout: float | None = None) -> Any:
        """As Dask does: what was lost is computed anew, perhaps in vain, perhaps never."""
        if self._lost == "died again":
            self.status = "error"
            raise KilledWorker(self.key, None, 0)
        if self._lost:
            assert timeout is not None, "nobody will ever answer"
            raise TimeoutError
        return self._outcome


class Here:
    """A client of Dask whose only worker is this process; `fate` says what becomes of what it is given."""

    status = "running"

    def __init__(self, fate: Callable[..., tuple[Any, str | None]]) -> None:
        self._fate = fate

    async def nthreads(self) -> dict[str, int]:
        return {"here": 1}

    def sync(self, question: Callable[[], Coroutine]) -> Any:
        return asyncio.run(question())

    def submit(self, _attempt: Callable, _version: str, packed: bytes, **_: Any) -> Ended:
        function, arguments = loads(packed)
        return Ended(*self._fate(function, *arguments))

    def cancel(self, futures: Sequence[Ended], **_: Any) -> None:
        pass


def committed_now(spec: ShardSpec) -> ShardResult:
    """Commit a shard without a model."""
    file, cells, fatal = f"{spec.stem}.parquet", len(spec.cells), len(spec.fatal)
    ran = ("cpu", "fp32", "torch", 0.1)
    result = ShardResult(spec.shard_id, spec.number, file, 4, cells, fatal, {}, *ran)
    commit(Path(spec.job.shards), result, b"rows")
    return result


@pytest.mark.parametrize("lost", ["died again", "late", "noticed"])
@pytest.mark.parametrize("visible", [True, False])
def test_a_result_that_is_lost_with_its_worker_loses_nothing(
    lost: str, visible: bool, job: Job
) -> None:
    launched: list[ShardResult] = []

    def fate(_: Callable, spec: ShardSpec) -> tuple[ShardResult, str | None]:
        launched.append(result := committed_now(spec))
        if len(launched) != 1:
            return result, None
        if not visible:
            (Path(job.shards) / result.file).with_suffix(".json").unlink()
        return result, lost

    done: list[ShardResult] = []
    specs = plan_shards(cells(8), job, 2)
    execute(Here(fate), specs, done.append, 60)
    assert len(launched) == (4 if visible else 5)
    assert sorted(done, key=lambda result: result.number) == committed(Path(job.base))
    assert sum(result.cells for result in done) == 8


def test_a_worker_that_dies_before_it_says_that_a_shard_is_committed_loses_nothing(
    job: Job,
) -> None:
    def fate(_: Callable, spec: ShardSpec, *more: Any) -> tuple[KilledWorker, None]:
        committed_now(spec)
        return KilledWorker("task", None, 0), None

    done: list[ShardResult] = []
    specs = plan_shards(cells(8), job, 4)
    execute(Here(fate), specs, done.append, 60)
    assert [result.number for result in done] == [0, 1]
    assert done == committed(Path(job.base))


def test_an_image_that_kills_is_found_where_names_stay_missing_for_a_while(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: what was not there when it was asked for, or was removed, is not looked up again soon."""
    missing: set[Path] = set()
    exists, unlink, read_text = Path.exists, Path.unlink, Path.read_text

    def exists_here(path: Path) -> bool:
        if path not in missing and exists(path):
            return True
        missing.add(path)
        return False

    def unlink_here(path: Path, missing_ok: bool = False) -> None:
        missing.add(path)
        unlink(path, missing_ok)

    def read_here(path: Path, *arguments: Any, **options: Any) -> str:
        if not exists_here(path):
            raise FileNotFoundError(path)
        return read_text(path, *arguments, **options)

    def fate(
        function: Callable, spec: ShardSpec, positions: Sequence[int] = (), trail: Path = Path()
    ) -> tuple[Any, None]:
        killed = KilledWorker("task", None, 0), None
        if function is run_shard:
            return (committed_now(spec), None) if spec.fatal else killed
        for position in positions:
            with trail.open("wb") as file:
                file.write(str(position).encode())
            if position == 6:
                return killed
        return None, None

    monkeypatch.setattr(Path, "exists", exists_here)
    monkeypatch.setattr(Path, "unlink", unlink_here)
    monkeypatch.setattr(Path, "read_text", read_here)
    done: list[ShardResult] = []
    specs = plan_shards(cells(8), job, 8)
    execute(Here(fate), specs, done.append, 60)
    assert [(result.cells, result.errors) for result in done] == [(8, 1)]
    assert not list(Path(job.shards).glob(".*"))


@pytest.mark.timeout(180)
def test_cells_of_finished_shards_are_let_go(slides: Path, job: Job, tmp_path: Path) -> None:
    folder = shutil.copytree(
        slides, tmp_path / "slides"
    )  # other tests' cells are of another source
    alive = []

    def count(_: ShardResult) -> None:
        gc.collect()
        ours = [thing for thing in gc.get_objects() if type(thing) is Cell]
        alive.append(sum(cell.source == folder.as_posix() for cell in ours))

    with local_workers(1, 1, 2 << 30) as client:
        execute(client, plan_shards(list_cells([folder]), job, 4), count, 60)
    assert len(alive) == 30
    assert 0 < max(alive) < 60  # of 120: those of the shards in flight


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("last", [False, True])
def test_ctrl_c_is_not_lost_while_an_object_is_thrown_away(
    slides: Path, job: Job, last: bool
) -> None:
    class Stubborn:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # Python drops what is raised here

    done: list[int] = []

    def count(result: ShardResult) -> None:
        done.append(result.number)
        if len(done) == (30 if last else 1):
            Stubborn()

    handler = signal.getsignal(signal.SIGINT)
    with local_workers(1, 1, 2 << 30) as client, pytest.raises(KeyboardInterrupt):
        execute(client, plan_shards(list_cells([slides]), job, 4), count, 60)
    assert len(done) == (30 if last else 1)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_shard_that_was_damaged_since_is_made_anew(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    damaged, *others = committed_shards(run_dir)
    times = [path.stat().st_mtime_ns for path in others]
    damaged.write_bytes(damaged.read_bytes()[:100])
    classify_paths([slides], run_dir, device="cpu", workers=1)
    assert (run_dir / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()
    assert [path.stat().st_mtime_ns for path in others] == times
    with pytest.raises(RunError, match="already holds a finished run"):
        classify_paths([slides], run_dir, device="cpu", workers=1)


def test_a_run_that_is_made_whole_again_keeps_its_review(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    cell = pd.read_csv(run_dir / "cells.csv")["cell_id"][7]
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(
        f"cell_id,reviewed_label,reviewed_by,reviewed_at\n{cell},basophil,Ann,2026-01-02\n"
    )
    rebuild_report(run_dir, review=corrections, force=True)
    reviewed = (run_dir / "cells.csv").read_bytes()
    committed_shards(run_dir)[0].unlink()
    classify_paths([slides], run_dir, device="cpu", workers=1)
    assert (run_dir / "cells.csv").read_bytes() == reviewed


#: Makes a process choose another precision, as on another kind of node.
ELSEWHERE = """
from wbc_batch.classifier import devices, openvino_backend

for module in openvino_backend, devices:
    plain = module.choose_precision
    module.choose_precision = lambda wanted, *more, plain=plain: (
        {other!r} if wanted == "auto" else plain(wanted, *more)
    )
"""


def test_a_continued_run_keeps_its_precision(
    slides: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    committed_shards(run_dir)[0].unlink()
    begun_in = committed(run_dir)[0].precision
    file = tmp_path / "elsewhere.py"
    file.write_text(ELSEWHERE.format(other="bf16" if begun_in == "fp32" else "fp32"))
    for module in ("openvino_backend", "devices"):  # taken back in the end
        name = f"wbc_batch.classifier.{module}.choose_precision"
        monkeypatch.setattr(name, pkgutil.resolve_name(name))
    runpy.run_path(str(file))
    with dask.config.set({"distributed.worker.preload": [str(file)]}):
        classify_paths([slides], run_dir, device="cpu", workers=1)
    assert json.loads((run_dir / "run.json").read_text())["precision"] == begun_in
    assert (run_dir / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_result(
    slides: Path, undisturbed: Path, traps: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"

    def interrupt(run: subprocess.Popen) -> None:
        run.send_signal(signal.SIGSTOP)  # or a busy machine is done before this is refused
        with pytest.raises(RunError, match="in use by another run"):
            classify_paths(slides, run_dir, device="cpu")
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGCONT)

    code, errors = stopped_run(slides, run_dir, traps, 1, interrupt)
    assert code == ExitCode.INTERRUPTED
    assert errors.splitlines()[-1].endswith("repeat the same command to continue")
    assert json.loads((run_dir / "run.json").read_text())["state"] == "interrupted"
    before = committed(run_dir)
    assert 1 <= len(before) < 4

    code, _ = stopped_run(slides, run_dir, traps, len(before) + 1, subprocess.Popen.kill)
    assert code == -signal.SIGKILL
    before = committed(run_dir)
    assert 2 <= len(before) < 4
    times = [path.stat().st_mtime_ns for path in committed_shards(run_dir)]

    last = subprocess.run(
        command(slides, run_dir, "--workers", "2"), capture_output=True, text=True
    )
    assert last.returncode == ExitCode.OK, last.stderr
    assert (run_dir / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()
    kept = [run_dir / SHARDS / result.file for result in before]
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert not list((run_dir / SHARDS).glob(".*"))
