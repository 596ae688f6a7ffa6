"""Reports made anew, comparisons, and what stands beside the page."""

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import invoke
from report_runs import a_row, draw, finished_run, page_of, read_csv
from rich.console import Console
from runs import contents, fill_disk_for, hold_open, powerless

from wbc_batch.errors import ClusterError, ExitCode, IncompleteRunError, InputError, RunError
from wbc_batch.rebuild import compare_runs, rebuild_report
from wbc_batch.report import agreement, read_differential
from wbc_batch.report.geojson import feature
from wbc_batch.report.terminal import print_comparison
from wbc_batch.run import classify_paths
from wbc_batch.schema import CELL_COLUMNS, CLASS_COLORS, CLASSES, UNIDENTIFIED
from wbc_batch.sources import Cell

pytestmark = pytest.mark.usefixtures("blank_drawings")

CONFUSION = {
    "counts": (200 * np.eye(5, dtype=int) + 5).tolist(),
    "data_sets": ["elsewhere"],
    "roles": ["not trained on"],
    "unidentified": [9] * 5,
}


def some_rows(labels: list[str | None], group: str = "slide-1", source: str = "in") -> list[dict]:
    return [
        a_row(Cell(source, f"{group}/{i}.png", None, group), label, 0.5 + i / 1000)
        if label
        else a_row(Cell(source, f"{group}/{i}.png", None, group), None, None, "the file is empty")
        for i, label in enumerate(labels)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = some_rows(["neutrophil"] * 6 + ["lymphocyte"] * 3 + [UNIDENTIFIED, None])
    return finished_run(tmp_path / "run", rows, model={"name": "m", "confusion": CONFUSION})


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no room for the drawings."""

    def write(folder: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr("wbc_batch.report.drawings.write_drawings", write)


# --- a report made anew ---------------------------------------------------------------------------


def test_a_report_is_made_anew_without_classifying(run: Path, real_drawings: None) -> None:
    told = invoke("report", run)
    assert told.exit_code == 0, told.stderr
    assert "Report:" in told.stdout
    assert len(read_csv(run / "cells.csv")) == 11
    table = pq.read_table(run / "cells.parquet").to_pandas()
    assert pq.read_metadata(run / "cells.parquet").num_row_groups == 1  # not one for each shard
    assert list(table["label"].dropna().unique()) == ["neutrophil", "lymphocyte", UNIDENTIFIED]
    from_csv = read_differential(run / "differential.csv")
    from_parquet = pq.read_table(run / "differential.parquet").to_pandas()
    np.testing.assert_allclose(from_csv["upper"], from_parquet["upper"], atol=1e-5)
    assert from_csv["confusion_upper"].notna().sum() == len(CLASSES)
    for name in ("shares", "confidence", "throughput", "differential-1-slide-1"):
        assert (run / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (run / "plots" / f"{name}.svg").read_text()
    text = " ".join(page_of(run).text.split())
    assert "measured on elsewhere (not trained on)" in text
    assert "slide-1 too few cells 0.0 0.0–33.6 0.0" in text  # none of 9, in the table of groups
    assert "Too few cells : 9 cells are identified, fewer than 100" in text


def test_reports_do_not_replace_those_of_another_run(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    before = sorted((path, path.stat().st_mtime_ns) for path in other.rglob("*"))
    told = invoke("report", run, "-o", other, "--force")
    assert told.exit_code == 1
    assert f"{other} holds another run" in told.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in other.rglob("*")) == before


def test_nothing_is_overwritten_without_force(run: Path, tmp_path: Path) -> None:
    assert invoke("report", run).exit_code == 0
    before = (run / "report.html").read_bytes()
    again = invoke("report", run, "--profile", "none")
    assert again.exit_code == 1
    assert "already holds cells.csv" in again.stderr
    assert (run / "report.html").read_bytes() == before
    assert invoke("report", run, "--profile", "none", "-o", tmp_path / "other").exit_code == 0
    assert (run / "report.html").read_bytes() == before
    assert invoke("report", run, "--profile", "none", "--force").exit_code == 0
    assert (run / "report.html").read_bytes() != before


@pytest.mark.parametrize(("name", "is_folder"), [("plots", False), ("report.html", True)])
def test_what_is_in_the_way_of_a_report_is_named(
    run: Path, tmp_path: Path, name: str, is_folder: bool
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / name).mkdir() if is_folder else (other / name).write_text("mine")
    told = invoke("report", run, "-o", other, "--force")
    assert told.exit_code == 1
    assert f"{other / name} is in the way of a {'file' if is_folder else 'folder'}" in told.stderr
    assert [path.name for path in other.iterdir()] == [name]


def test_a_report_for_which_there_is_no_room_leaves_nothing_and_ends_in_4(
    run: Path, full: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere"
    told = invoke("report", run, "-o", place)
    assert told.exit_code == ExitCode.INCOMPLETE
    assert "plots cannot be written (no space left on device)" in told.stderr
    assert not place.exists()
    place.mkdir()
    fill_disk_for("cells.csv", monkeypatch)
    told = invoke("report", run, "-o", place)
    assert told.exit_code == ExitCode.INCOMPLETE
    assert "cells.csv cannot be written (no space left on device)" in told.stderr
    assert not list(place.iterdir())


def test_a_run_of_a_script_names_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_workers(*_: object) -> None:
        raise ClusterError("no worker came up")

    monkeypatch.setattr("wbc_batch.engine.crew.Crew.open", no_workers)
    draw(tmp_path / "cells" / "1.png")
    with pytest.raises(ClusterError, match="no worker came up"):
        classify_paths(tmp_path / "cells", tmp_path / "run", device="cpu")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["command"] is None
    with pytest.raises(IncompleteRunError, match="make the same call to continue it"):
        rebuild_report(tmp_path / "run")


def test_a_run_that_is_not_finished_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "run.json").read_text()) | {"state": "interrupted"}
    (run / "run.json").write_text(json.dumps(record))
    next((run / "shards").glob("000001*.json")).unlink()
    told = invoke("report", run)
    assert told.exit_code == 4
    assert "5 of 11 cells are not classified yet (state: interrupted)" in told.stderr
    assert "wbc-batch classify x" in told.stderr
    assert not (run / "report.html").exists()
    (run / "run.json").write_text(json.dumps(record | {"directory": "/data/lab"}))
    with pytest.raises(IncompleteRunError, match=r"continue it with \(in /data/lab\): wbc-batch"):
        compare_runs(run, run, tmp_path / "compared")
    (run / "run.json").write_text(json.dumps(record | {"folder": str(tmp_path / "old")}))
    with pytest.raises(IncompleteRunError, match=rf"continue it with \(with -o {run}\): wbc-batch"):
        rebuild_report(run)
    (run / "run.json").write_text(json.dumps(record | {"state": "finished"}))
    with pytest.raises(IncompleteRunError, match="no longer complete: the shards of 5 of 11 cells"):
        rebuild_report(run)
    with pytest.raises(RunError, match="does not hold a run"):
        rebuild_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(RunError, match=r"cannot be accessed \(file name too long\)"):
        rebuild_report(tmp_path / (300 * "x"))


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "finished"}', "[" * 200_000])
def test_a_record_that_is_damaged_is_said_to_be(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    told = invoke("report", run)
    assert told.exit_code == 1
    assert "run.json" in told.stderr
    assert "classify into this one again with --force" in told.stderr


def test_a_project_that_was_moved_keeps_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    rows = [a_row(Cell("in", "s/a.png", None, "s"), "monocyte", 0.9)]
    facts = {"directory": str(before), "folder": str(before / "out" / "run"), "inputs": ["in"]}
    run = finished_run(after / "out" / "run", rows, **facts)
    rebuild_report(run, tmp_path / "without")
    assert (
        "the page lacks 1 of 1 images; the first missing one is of in/s/a.png: the file is"
        in caplog.text
    )
    caplog.clear()
    draw(after / "in" / "s" / "a.png")
    rebuild_report(run, tmp_path / "beside")
    assert len(page_of(tmp_path / "beside").pictures("Crop as given")) == 1
    run.rename(tmp_path / "results-alone")
    monkeypatch.chdir(after)
    rebuild_report(tmp_path / "results-alone", tmp_path / "current")
    assert len(page_of(tmp_path / "current").pictures("Crop as given")) == 1
    assert "lacks" not in caplog.text


def test_files_that_may_not_be_read_are_not_called_damaged(tmp_path: Path) -> None:
    forbidden = ["run.json", "shards", "shards/000001-test.parquet"]
    for number, name in enumerate(forbidden):
        run = finished_run(tmp_path / str(number), some_rows(["neutrophil"] * 4))
        (run / name).chmod(0)
    report = """
import sys
from pathlib import Path
from wbc_batch.errors import WbcError
from wbc_batch.rebuild import rebuild_report

for run in map(Path, sys.argv[1:]):
    try:
        rebuild_report(run)
    except WbcError as error:
        print(int(error.exit_code), error)
"""
    runs = [str(tmp_path / str(number)) for number in range(len(forbidden))]
    told = subprocess.run(
        [*powerless(), sys.executable, "-c", report, *runs], capture_output=True, text=True
    )
    for run, name in zip(runs, forbidden, strict=True):
        (Path(run) / name).chmod(0o755)
    assert told.stdout.splitlines() == [
        f"4 {run}/{name} cannot be read (permission denied); make the files of the run readable for this "
        "user, then repeat the command"
        for run, name in zip(runs, forbidden, strict=True)
    ], told.stderr


def test_a_shard_that_is_damaged_is_classified_anew(run: Path) -> None:
    shard = run / "shards" / "000000-test.parquet"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(
        RunError, match="delete it and repeat the wbc-batch classify command recorded in"
    ):
        rebuild_report(run)


def test_choices_of_the_run_are_kept_unless_others_are_made(tmp_path: Path) -> None:
    mine = {"name": "mine", "title": "Mice", "source": "", "absolute": {}}
    mine["percent"] = {"lymphocyte": {"lower": 60.0, "upper": 90.0}}
    rows = some_rows(["neutrophil"] * 150)
    choices = {"profile": mine, "wbc_counts": {"slide-1": 6.0}}
    run = finished_run(tmp_path / "run", rows, report=choices)
    rebuild_report(run)
    assert "Mice" in page_of(run).text
    assert {row["label"] for row in read_csv(run / "flags.csv")} == {"lymphocyte"}
    assert read_differential(run / "differential.csv")["absolute"].max() == pytest.approx(6.0)
    rebuild_report(run, profile="uchicago", force=True)
    assert "UChicago" in page_of(run).text
    assert {row["flag"] for row in read_csv(run / "flags.csv")} == {"outside the chosen range"}


def test_counts_of_the_run_go_with_their_groups_and_not_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choices = {"wbc_counts": {"slide-1": 6.0}}
    run = finished_run(tmp_path / "run", some_rows(["monocyte"] * 3), report=choices)
    again = rebuild_report(run, tmp_path / "same", groups=r"(slide-\d)")
    assert read_differential(again.with_name("differential.csv"))["absolute"].max() == 6.0
    assert "counts of the run" not in caplog.text
    other = rebuild_report(run, tmp_path / "other", groups="source")
    assert read_differential(other.with_name("differential.csv"))["absolute"].isna().all()
    assert caplog.text.count("the white blood cell counts of the run are left out") == 1


def test_a_review_is_merged_and_compared(run: Path, tmp_path: Path) -> None:
    ids = [row["cell_id"] for row in read_csv_after_report(run)]
    labels = ["neutrophil", "neutrophil", "monocyte", "", "", "", "lymphocyte"]
    corrections = tmp_path / "corrections.csv"
    lines = [f"{i},{label},Ann,2026-01-02\n" for i, label in zip(ids, labels, strict=False)]
    corrections.write_text(
        "cell_id,reviewed_label,reviewed_by,reviewed_at\n" + "".join(reversed(lines))
    )
    told = invoke("report", run, "--review", corrections, "--force")
    before, after = told.stdout.split("After the review:")
    assert "66.7%" in before  # neutrophils: 6 of 9
    assert "55.6%" in after  # and 5 of 9
    for of_the_model in ("mean", "too few cells"):
        assert (of_the_model in before, of_the_model in after) == (True, False)
    told = invoke("report", run, "--review", corrections, "--force", "--json")
    counted = {row["label"]: row["count"] for row in json.loads(told.stdout)["reviewed"]}
    assert (counted["neutrophil"], counted["monocyte"]) == (5, 1)

    rows = read_csv(run / "cells.csv")
    assert [row["label"] for row in rows][:3] == ["neutrophil"] * 3
    assert [row["reviewed_label"] for row in rows][:4] == [*labels[:3], ""]
    counts = read_differential(run / "differential.csv").set_index("label")["count"]
    after = read_differential(run / "differential-reviewed.csv").set_index("label")["count"]
    assert (counts["neutrophil"], counts["monocyte"]) == (6, 0)
    assert (after["neutrophil"], after["monocyte"], after[UNIDENTIFIED]) == (5, 1, 1)
    sure = read_differential(run / "differential-reviewed.csv").set_index("label")
    assert np.isnan(sure.loc["monocyte", "median_confidence"])  # the model took it for another
    # Of the neutrophils 0, 1, 3, 4, 5: the third is a monocyte.
    assert sure.loc["neutrophil", "mean_confidence"] == pytest.approx(0.5 + 13 / 5000)
    pairs = [("neutrophil", "neutrophil")] * 2 + [("neutrophil", "monocyte"), ("lymphocyte",) * 2]
    kappa = agreement(*zip(*pairs, strict=True)).kappa
    text = " ".join(page_of(run).text.split())
    assert "4 cells were reviewed by Ann" in text
    assert (
        "After the review: 9 identified · 1 unidentified · 1 error. The list above refers to"
        in text
    )
    assert f"Cohen’s kappa {kappa:.3f}" in text

    # A whole cells.csv with these columns is a corrections file, too.
    copy = tmp_path / "whole.csv"
    (run / "cells.csv").rename(copy)
    rebuild_report(run, review=copy, force=True)
    assert read_csv(run / "cells.csv") == read_csv(copy)


@pytest.mark.parametrize(
    ("reviewed", "told"),
    [
        ([10], "1 cell was reviewed by Ann. Model and reviewer agree on 0 of the 0 that the model"),
        ([0, 10], "2 cells were reviewed by Ann. Model and reviewer agree on 1 of the 1 that the"),
        ([0, 1], "2 cells were reviewed by Ann. Model and reviewer agree on 2 of them"),
    ],
)
def test_the_page_counts_reviewed_cells_that_the_model_could_not_classify(
    run: Path, tmp_path: Path, reviewed: list[int], told: str
) -> None:
    ids = [row["cell_id"] for row in read_csv_after_report(run)]
    corrections = tmp_path / "corrections.csv"
    lines = [f"{ids[i]},neutrophil,Ann,\n" for i in reviewed]
    corrections.write_text("cell_id,reviewed_label,reviewed_by,reviewed_at\n" + "".join(lines))
    rebuild_report(run, review=corrections, force=True)
    text = " ".join(page_of(run).text.split())
    assert told in text
    nowhere = "They are not counted anywhere else" + (
        ", except that those a reviewer" if 10 in reviewed else "."
    )
    assert nowhere in text


def test_a_report_made_anew_keeps_the_review_of_the_one_before(run: Path, tmp_path: Path) -> None:
    first = read_csv_after_report(run)[0]["cell_id"]
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(
        f"cell_id,reviewed_label,reviewed_by,reviewed_at\n{first},monocyte,=Ann,2026-01-02\n"
    )
    rebuild_report(run, review=corrections, force=True)
    names = ("cells.csv", "cells.parquet", "differential-reviewed.csv")
    before = [(run / name).read_bytes() for name in names]
    told = invoke("report", run, "--force")
    assert f"After the review in {run / 'cells.csv'}" in told.stdout
    assert [(run / name).read_bytes() for name in names] == before
    rebuild_report(run, tmp_path / "by-input", groups="source")
    assert read_csv(tmp_path / "by-input" / "cells.csv")[0]["reviewed_label"] == "monocyte"

    text = (run / "cells.csv").read_text()
    (run / "cells.csv").write_text(text.replace('"monocyte","\'=Ann"', '"blast","\'=Ann"'))
    told = invoke("report", run, "--force")
    assert told.exit_code == 2
    assert "row 2 ('blast')" in told.stderr
    assert "leave out that review with --review none" in told.stderr

    told = invoke("report", run, "--force", "--review", "none")
    assert "After the review" not in told.stdout
    assert "reviewed_label" not in read_csv(run / "cells.csv")[0]
    assert not (run / "differential-reviewed.csv").exists()


def test_a_review_that_cannot_be_read_is_not_replaced(run: Path, tmp_path: Path) -> None:
    read_csv_after_report(run)
    table = run / "cells.csv"
    table.write_text(table.read_text(), "utf-16")  # which Excel calls Unicode text
    before = table.read_bytes()
    for place in ([], ["-o", tmp_path / "elsewhere"]):
        told = invoke("report", run, "--force", *place)
        assert told.exit_code == 2
        assert "leave out that review with --review none" in told.stderr
    assert table.read_bytes() == before
    assert invoke("report", run, "--force", "--review", "none").exit_code == 0


def test_only_reviewed_cells_are_shown_with_a_reviewer(run: Path, tmp_path: Path) -> None:
    first = read_csv_after_report(run)[0]["cell_id"]
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(
        f"cell_id,reviewed_label,reviewed_by,reviewed_at\n{first},monocyte,Ann,\n"
    )
    rebuild_report(run, review=corrections, force=True)
    (verdict,) = re.findall(r"reviewer: \w+", page_of(run).text)
    assert verdict == "reviewer: monocyte"


def read_csv_after_report(run: Path) -> list[dict[str, str]]:
    rebuild_report(run)
    return read_csv(run / "cells.csv")


def test_corrections_of_unknown_cells_change_nothing(run: Path, tmp_path: Path) -> None:
    rebuild_report(run)
    before = (run / "cells.csv").read_bytes(), (run / "report.html").read_bytes()
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(
        "cell_id,reviewed_label,reviewed_by,reviewed_at\n0123456789abcdef,monocyte,Ann,\n"
    )
    told = invoke("report", run, "--review", corrections, "--force")
    assert told.exit_code == 2
    assert "row 2 ('0123456789abcdef')" in told.stderr
    assert ((run / "cells.csv").read_bytes(), (run / "report.html").read_bytes()) == before
    assert not [path for path in run.iterdir() if path.name.endswith(".partial")]
    assert invoke("report", run, "--review", corrections, "-o", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_white_blood_cell_counts_of_unknown_groups_are_refused(run: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts.csv"
    counts.write_text("group,wbc\nslide-1,6.0\nslide-9,7.0\n")
    with pytest.raises(InputError, match="'slide-9'; its groups are 'slide-1'"):
        rebuild_report(run, wbc_counts=counts)
    assert not (run / "report.html").exists()
    # classify refuses them before it classifies
    draw(tmp_path / "cells" / "slide-1" / "a.png")
    told = invoke("classify", tmp_path / "cells", "-o", tmp_path / "out", "--wbc-counts", counts)
    assert told.exit_code == 2
    assert "'slide-9'" in told.stderr
    assert not (tmp_path / "out").exists()


def test_cells_are_grouped_otherwise(run: Path, tmp_path: Path) -> None:
    page = rebuild_report(run, tmp_path / "other", groups=r"/(\w+)-\d/")
    assert set(read_differential(page.with_name("differential.csv"))["group"]) == {"slide"}
    assert {row["group"] for row in read_csv(page.with_name("cells.csv"))} == {"slide"}


# --- known classes --------------------------------------------------------------------------------


def test_folders_named_like_classes_add_the_accuracy_unasked(tmp_path: Path) -> None:
    rows = some_rows(["basophil"] * 8 + ["monocyte"] * 2 + [UNIDENTIFIED], "a/Basophil")
    rows += some_rows(["monocyte"] * 4 + [None], "a/monocyte") + some_rows(["monocyte"], "b")
    run = finished_run(tmp_path / "run", rows)
    rebuild_report(run)
    table = read_differential(run / "differential.csv")
    assert list(dict.fromkeys(table["group"])) == ["a", "b"]
    assert [row["given_label"] for row in read_csv(run / "cells.csv")][-2:] == ["monocyte", ""]
    confusion = {row["known"]: row for row in read_csv(run / "confusion.csv")}
    assert (confusion["basophil"]["basophil"], confusion["basophil"]["monocyte"]) == ("8", "2")
    assert confusion["basophil"][UNIDENTIFIED] == "1"
    text = " ".join(page_of(run).text.split())
    assert "For 15 classified cells, the class was known beforehand" in text
    assert "12 of 14 have the same label" in text
    assert "is right for 13 of 15" in text  # the best guess of the unidentified one is basophil
    assert (run / "plots" / "confusion.svg").exists()


def test_a_tables_label_is_known_too(tmp_path: Path) -> None:
    rows = some_rows(["basophil", "monocyte", "monocyte"])
    for row, given in zip(rows, ("Basophil", "blast", None), strict=True):
        row["given_label"] = given
    run = finished_run(tmp_path / "run", rows, (*CELL_COLUMNS, "given_label"))
    rebuild_report(run)
    assert "For 1 classified cells," in " ".join(page_of(run).text.split())
    assert [row["given_label"] for row in read_csv(run / "cells.csv")] == ["Basophil", "blast", ""]


def test_without_known_classes_nothing_is_said_of_them(run: Path) -> None:
    rebuild_report(run)
    assert "known beforehand" not in page_of(run).text
    assert not (run / "confusion.csv").exists()


# --- other readers' formats -----------------------------------------------------------------------


def placed_rows() -> list[dict]:
    rows = some_rows(["basophil", UNIDENTIFIED, "monocyte", None], "field-1")
    for i, row in enumerate(rows):
        row |= {"member": "a/field.png" if i < 2 else "b/field.png"}
        row |= {"x": 10.0 * i, "y": 5.0, "width": 30.0, "height": 40.0}
    rows[2]["x"] = None
    return rows


BOXED = (*CELL_COLUMNS, "x", "y", "width", "height")


@pytest.mark.parametrize("name", ["cells.csv", "confusion.csv", "differential-reviewed.parquet"])
def test_a_table_that_another_program_keeps_open_is_named_and_no_other_is_replaced(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild_report(run)
    (run / name).touch()  # not every report has it
    before = contents(run)
    hold_open(run / name, monkeypatch)
    told = invoke("report", run, "--force")
    assert told.exit_code == ExitCode.INCOMPLETE
    assert f"{run / name} cannot be replaced (access is denied); close the program" in told.stderr
    assert contents(run) == before
    monkeypatch.undo()
    assert invoke("report", run, "--force").exit_code == 0


def test_a_table_that_is_opened_while_the_report_is_written_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild_report(run)
    (run / "confusion.csv").touch()
    monkeypatch.setattr("wbc_batch.report.write.try_replacing", lambda _: None)
    hold_open(run / "confusion.csv", monkeypatch)
    told = invoke("report", run, "--force")
    assert told.exit_code == ExitCode.INCOMPLETE
    assert f"{run / 'confusion.csv'} cannot be replaced (access is denied); close" in told.stderr


def test_cells_in_images_become_geojson_for_qupath(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", placed_rows(), BOXED)
    rebuild_report(run)
    assert "geojson/" in [a["href"] for tag, a in page_of(run).elements if tag == "a"]
    files = {path.name: json.loads(path.read_text()) for path in (run / "geojson").iterdir()}
    assert set(files) == {"field.png.geojson", "field.png-2.geojson"}
    first, second = files["field.png.geojson"]["features"]
    assert first["geometry"]["coordinates"] == [[[0, 5], [30, 5], [30, 45], [0, 45], [0, 5]]]
    assert first["properties"]["objectType"] == "detection"
    colour = CLASS_COLORS["basophil"]
    assert first["properties"]["classification"] == {
        "name": "basophil",
        "color": [int(colour[i : i + 2], 16) for i in (1, 3, 5)],
    }
    assert first["properties"]["measurements"]["confidence"] == pytest.approx(0.5)
    assert second["properties"]["classification"]["name"] == UNIDENTIFIED
    assert [row["x"] for row in read_csv(run / "cells.csv")] == ["0", "10", "", "30"]
    (error,) = files["field.png-2.geojson"]["features"]
    assert error["properties"]["classification"]["name"] == "error"
    assert error["properties"]["measurements"] == {}
    reviewed = feature(placed_rows()[0] | {"reviewed_label": "monocyte"})
    assert reviewed["properties"]["classification"]["name"] == "monocyte"


def test_the_page_shows_the_crop_and_not_the_image_around_it(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "field.png")  # 80 x 80, a disc at (30, 46)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,x,y,width,height\nimages/field.png,20,36,20,22\n")
    row = a_row(Cell(str(boxes), "images/field.png", 0, "g"), "monocyte", 0.9)
    row |= {"x": 20.0, "y": 36.0, "width": 20.0, "height": 22.0}
    run = finished_run(tmp_path / "run", [row], BOXED)
    rebuild_report(run)
    (crop,) = page_of(run).pictures("Crop as given")
    assert crop.shape == (28, 26, 3)  # the box with room around it
    assert crop[11, 10].max() < 200


def test_anndata_holds_probabilities_and_places(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    run = finished_run(tmp_path / "run", placed_rows(), BOXED)
    rebuild_report(run, anndata=True)
    table = anndata.read_h5ad(run / "cells.h5ad")
    assert table.shape == (4, 5)
    assert list(table.var_names) == list(CLASSES)
    assert table.obs["label"].iloc[0] == "basophil"
    np.testing.assert_allclose(table.obsm["spatial"][0], [15.0, 25.0])


def test_anndata_is_asked_for_where_it_is_missing(run: Path, monkeypatch) -> None:
    monkeypatch.setattr("wbc_batch.errors.find_spec", lambda _name: None)
    told = invoke("report", run, "--anndata")
    assert told.exit_code == 2
    assert "wbc-napari[anndata]" in told.stderr


# --- two runs -------------------------------------------------------------------------------------


def two_runs(tmp_path: Path, source: str = "in") -> tuple[Path, Path]:
    first = ["neutrophil"] * 6 + ["lymphocyte"] * 3 + [None]
    second = ["neutrophil"] * 5 + ["monocyte"] + ["lymphocyte"] * 2 + [UNIDENTIFIED, "basophil"]
    return (
        finished_run(tmp_path / "one", some_rows(first), model={"name": "m1"}),
        finished_run(
            tmp_path / "two", some_rows([*second, "basophil"], source=source), model={"name": "m2"}
        ),
    )


@pytest.mark.parametrize("source", ["in", "elsewhere/in"])
def test_two_runs_are_compared_cell_by_cell(tmp_path: Path, source: str) -> None:
    one, two = two_runs(tmp_path, source)
    told = invoke("compare", one, two, "-o", tmp_path / "compared", "--json")
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["cells"], found["compared"], found["agreeing"]) == (10, 9, 7)
    assert (found["only_in"], found["changed"]) == ([0, 1], 3)
    first = ["neutrophil"] * 6 + ["lymphocyte"] * 3
    second = ["neutrophil"] * 5 + ["monocyte"] + ["lymphocyte"] * 2 + [UNIDENTIFIED]
    assert found["kappa"] == pytest.approx(agreement(first, second).kappa)
    changed = read_csv(tmp_path / "compared" / "changed.csv")
    assert {(row["label_a"], row["label_b"]) for row in changed} == {
        ("neutrophil", "monocyte"), ("lymphocyte", UNIDENTIFIED), ("", "basophil")
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "compared" / "agreement.csv", index_col="label")
    assert table.loc["neutrophil", "monocyte"] == 1
    text = (tmp_path / "compared" / "compare.html").read_text()
    assert "1 of two, which the other run does not have" in " ".join(text.split())
    assert "→ unidentified, guess: basophil" in text
    assert "one: model m1 · two: model m2" in text
    again = invoke("compare", one, two, "-o", tmp_path / "compared")
    assert again.exit_code == 1
    assert "--force" in again.stderr
    shown = invoke("compare", one, two, "-o", tmp_path / "compared", "--force")
    assert (
        "Of 9 cells that both runs classified, 7 have the same label (77.8 %), Cohen"
        in shown.stdout
    )
    assert (
        "; of 10 cells that both have, 3 changed; in one run only: 0 of one, 1 of two"
        in shown.stdout
    )
    # That no model has taken for another, but one of them could not read, comes last.
    assert [row["label_a"] for row in changed] == ["lymphocyte", "neutrophil", ""]


@pytest.mark.parametrize(
    ("inputs", "directory"),
    [
        (("{0}/p1/cells", "{0}/p2/cells"), "elsewhere"),  # the same places, otherwise named
        (("./p1/cells", "./p2/cells"), "s"),
        (("/copied/p1/cells", "/copied/p2/cells"), "elsewhere"),
    ],
)
def test_folders_of_one_name_are_told_apart(
    tmp_path: Path, inputs: tuple[str, str], directory: str
) -> None:
    labels = ["basophil", "neutrophil"]
    runs = []
    for name, sources, begun in (
        ("one", ("p1/cells", "p2/cells"), "s"),
        ("two", [source.format(tmp_path / "s") for source in inputs], directory),
    ):
        rows = [
            row
            for label, source in zip(labels, sources, strict=True)
            for row in some_rows([label] * 3, source=source)
        ]
        runs.append(finished_run(tmp_path / name, rows, directory=str(tmp_path / begun)))
    found = compare_runs(*runs, tmp_path / "compared")
    assert (found.agreement.cells, found.agreement.agreeing) == (6, 6)
    assert (found.only_first, found.only_second) == (0, 0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_comparison_is_printed_whole_however_narrow(tmp_path: Path, width: int) -> None:
    one, two = two_runs(tmp_path)
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        print_comparison(compare_runs(one, two, tmp_path / "compared"), console)
    printed = capture.get()
    assert "…" not in printed
    assert max(map(len, printed.splitlines()[:10])) <= width
    rows = {
        line.split()[0]: line.split()[1:] for line in printed.splitlines() if line[:1].isalpha()
    }
    assert rows["neutrophil"] == ["1", "5"]
    assert rows["unidentified"] == []


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [
        finished_run(tmp_path / lab / "run", some_rows(["monocyte"] * 3)) for lab in ("one", "two")
    ]
    compare_runs(*runs, tmp_path / "compared")
    page = page_of(tmp_path / "compared", "compare.html")
    assert all(str(run) in page.text for run in runs)


def test_a_run_that_holds_a_cell_twice_is_not_compared(tmp_path: Path) -> None:
    one = finished_run(tmp_path / "one", some_rows(["monocyte"]))
    two = finished_run(tmp_path / "two", some_rows(["monocyte"]) * 2)
    with pytest.raises(InputError, match="the run two holds a cell twice"):
        compare_runs(one, two, tmp_path / "compared")


def test_runs_without_a_common_cell_are_refused(tmp_path: Path) -> None:
    one = finished_run(tmp_path / "one", some_rows(["monocyte"], "a"))
    two = finished_run(tmp_path / "two", some_rows(["monocyte"], "b"))
    with pytest.raises(InputError, match="no cell in common"):
        compare_runs(one, two, tmp_path / "compared")
    assert not (tmp_path / "compared").exists()
