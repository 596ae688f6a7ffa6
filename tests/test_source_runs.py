"""What runs make of inputs of every kind: shards along their units, rows, groups, exit codes."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

from wbc_batch.engine.plan import Job, Listing, plan_shards, survey
from wbc_batch.engine.run_folder import Settings
from wbc_batch.engine.work import run_shard
from wbc_batch.errors import ExitCode, InputError
from wbc_batch.records import differences
from wbc_batch.run import classify_paths
from wbc_batch.schema import BOX_COLUMNS, CELL_COLUMNS
from wbc_batch.sources import Box, Cell, Place, list_cells, stdin_kept
from wbc_batch.sources.pack import pack
from wbc_batch.synthetic import draw_cells

COUNT = 24


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.stack(list(draw_cells(COUNT, seed=3)[0]))[:, 120:240, 120:240].copy()


@pytest.fixture(scope="module")
def folder(crops: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of drawn cells, and a file that is no image."""
    folder = tmp_path_factory.mktemp("input") / "slides"
    for number, crop in enumerate(crops):
        path = folder / f"slide-{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(path)
    (folder / "slide-0" / "zz.png").write_bytes(b"not a picture")
    return folder


def rows_of(inputs: list[Path], job: Job, group_by: str | None = None) -> pd.DataFrame:
    """Rows of a run, without workers."""
    job = replace(job, columns=survey(list_cells(inputs, group_by)).columns)
    shards = plan_shards(list_cells(inputs, group_by), job, 10)
    tables = [pd.read_parquet(Path(job.shards, run_shard(spec).file)) for spec in shards]
    assert {tuple(table.columns) for table in tables} == {(*CELL_COLUMNS, *job.columns)}
    return pd.concat(tables, ignore_index=True)


def test_shards_end_where_units_end(job: Job) -> None:
    cells = [Cell("a.zarr", "", i, "a", place=Place("a.zarr", i, i // 6)) for i in range(60)]
    shards = list(plan_shards(cells, job, 10))
    assert [len(shard.cells) for shard in shards] == [12, 12, 12, 12, 12]
    assert [cell for shard in shards for cell in shard.cells] == cells
    # A unit that is far too large is cut all the same.
    one = [replace(cell, place=Place("a.zarr", cell.index or 0, 0)) for cell in cells]
    assert [len(shard.cells) for shard in plan_shards(one, job, 10)] == [40, 20]


def test_digests_know_groups_boxes_and_labels() -> None:
    cell = Cell("t.csv", "a.png", 0, "g", Box(1, 2, 3, 4))
    others = [
        replace(cell, group="h"),
        replace(cell, box=Box(1, 2, 3, 5)),
        replace(cell, given_label="monocyte"),
    ]
    assert len({survey([one]).digest for one in [cell, *others]}) == 4
    assert survey([cell]).columns == BOX_COLUMNS
    assert survey([replace(cell, box=None)]) == Listing(1, survey([replace(cell, box=None)]).digest)


def test_every_kind_gives_the_rows_of_the_folder(
    folder: Path, crops: np.ndarray, job: Job, tmp_path: Path
) -> None:
    expected = rows_of([folder], job)
    assert expected["status"].tolist().count("error") == 1
    numbers = [
        f for f in CELL_COLUMNS if f not in ("cell_id", "source", "member", "index", "group")
    ]

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(folder).as_posix())
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        for path in files:
            archive.add(path, path.relative_to(folder).as_posix())
    for name in ("s.zip", "s.tar.gz"):
        found = rows_of([tmp_path / name], job)
        pd.testing.assert_frame_equal(found[["member", "group"]], expected[["member", "group"]])
        pd.testing.assert_frame_equal(found[numbers], expected[numbers])

    table = pd.DataFrame({"path": [str(path) for path in files], "label": "monocyte"})
    table.to_csv(tmp_path / "t.csv", index=False)
    found = rows_of([tmp_path / "t.csv"], job)
    pd.testing.assert_frame_equal(found[numbers], expected[numbers])
    assert set(found["given_label"]) == {"monocyte"}

    order = [number for number in range(COUNT) if number % 2 == 0] + list(range(1, COUNT, 2))
    array = zarr.create_array(
        tmp_path / "c.zarr", shape=crops.shape, dtype="uint8", chunks=(5, *crops.shape[1:])
    )
    array[:] = crops[order]
    good = expected[expected["status"] == "ok"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows_of([tmp_path / "c.zarr"], job)[numbers], good[numbers])


def test_boxes_end_in_the_rows(crops: np.ndarray, job: Job, tmp_path: Path) -> None:
    field = np.vstack([np.hstack(crops[:3]), np.hstack(crops[3:6])])
    Image.fromarray(field).save(tmp_path / "field.png")
    side = crops.shape[1]
    text = "image,x,y,width,height\n"
    text += "".join(f"field.png,{n % 3 * side},{n // 3 * side}.2,{side},{side}\n" for n in range(6))
    (tmp_path / "t.csv").write_text(text + f"field.png,{5 * side},0,{side},{side}\n")
    with_room = side + round(0.15 * side)  # in a corner of the field, there is room on two sides
    Image.fromarray(field[:with_room, :with_room]).save(tmp_path / "whole.png")
    found = rows_of([tmp_path / "t.csv", tmp_path / "whole.png"], job)
    boxes = found[list(BOX_COLUMNS)]
    assert boxes.iloc[4].tolist() == [side, side, side, side]
    assert boxes.iloc[7].isna().all()
    assert found["status"].tolist() == ["ok"] * 6 + ["error", "ok"]
    assert "outside field.png" in found["error"][6]
    assert found["predicted"][0] == found["predicted"][7]
    assert found["confidence"][0] == pytest.approx(found["confidence"][7], abs=1e-6)


@pytest.mark.usefixtures("blank_drawings")
def test_a_mixed_run_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(folder / "slide-1" / "01.png", "slide-9/1.png")
    inputs = [folder, tmp_path / "s.zip"]
    summary = classify_paths(
        inputs, tmp_path / "run", group_by=r"/slide-(\d)/", device="cpu", workers=1
    )
    assert (summary.cells, summary.errors) == (COUNT + 2, 1)
    assert summary.exit_code == ExitCode.CELL_ERRORS
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    assert set(cells["group"]) == {0, 1, 9}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["group_by"] == r"/slide-(\d)/"
    assert record["inputs"] == [path.as_posix() for path in inputs]


def test_the_command_line_takes_paths_from_standard_input(folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.glob("slide-1/*.png"))
    code = "from wbc_batch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "classify", "-", "-o", "run", "--workers", "1"],
        input=b"\n".join(os.fsencode(path) for path in paths),
        capture_output=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == ExitCode.OK, done.stderr
    cells = pd.read_csv(tmp_path / "run" / "cells.csv", keep_default_na=False)
    assert cells["source"].tolist() == [path.as_posix() for path in paths]
    assert set(cells["group"]) == {paths[0].parent.as_posix()}


@pytest.mark.parametrize("named", [".", "slides/..", "run"])
def test_results_among_paths_from_standard_input_are_refused(
    named: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "slides")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.png").touch()
    monkeypatch.chdir(tmp_path)
    with stdin_kept(["-"], io.BytesIO(named.encode())) as kept:
        with pytest.raises(InputError, match=f"results folder run lies inside the input {named},"):
            classify_paths(kept, "run", device="cpu", workers=1)
        with pytest.raises(InputError, match=r"the store run/a\.zarr lies inside"):
            pack(kept, "run/a.zarr")


def test_another_rule_is_another_run() -> None:
    old = Settings("1", "m", "i", "3 (a)", "cpu", "fp32", "torch", "by folder")
    assert differences(asdict(old), asdict(replace(old, groups="source"))) == [
        "groups was 'by folder' and is now 'source'"
    ]
