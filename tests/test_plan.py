"""``plan``: what it says of a run is what the run then does, and it leaves nothing behind."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import invoke
from runs import dask_cluster, draw

from wbc_batch.dry_run import plan_run
from wbc_batch.engine.clusters import local_workers
from wbc_batch.engine.plan import Job
from wbc_batch.engine.trial import Trial, try_out
from wbc_batch.errors import ExitCode, IncompleteRunError
from wbc_batch.ledger import committed
from wbc_batch.request import make_request
from wbc_batch.sources import list_cells

MIB = 2**20


def lines_of(output: str) -> dict[str, str]:
    return {name: text for name, _, text in (line.partition(" ") for line in output.splitlines())}


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def test_folders_of_classes_are_no_groups_as_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_batch.dry_run.try_out", lambda *_: None)
    for place in ("s1/Monocyte", "s1/neutrophil", "s2/Monocyte"):
        draw(tmp_path / place / "1.png", 1)
    assert plan_run(make_request(tmp_path, device="cpu")).groups == {"s1": 2, "s2": 1}


def test_a_plan_tells_what_the_run_does(slides: Path, undisturbed: Path) -> None:
    planned = plan_run(make_request(slides, device="cpu", workers=1, memory_limit="2GiB"))
    record = json.loads((undisturbed / "run.json").read_text())
    assert planned.cells == record["counts"]["cells"] == 120
    assert planned.groups == {"slide-0": 40, "slide-1": 40, "slide-2": 40}
    assert planned.model == record["model"]["name"]
    assert planned.shards == len(committed(undisturbed))
    assert planned.shard_cells == record["shard_cells"]
    assert (planned.workers, planned.threads_per_worker) == (
        record["workers"],
        record["threads_per_worker"],
    )
    assert planned.memory_limit == 2048 * MIB
    assert 200 * MIB < planned.worker_memory < 2048 * MIB
    assert 0 < planned.seconds < 120


def test_a_person_reads_it_and_nothing_is_left(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wbc_batch.dry_run.try_out", lambda *_: Trial(500 * MIB, 100.0))
    (tmp_path / "t.csv").write_text(f"path,group\n{slides}/slide-0/000.png,\n")
    result = invoke("plan", "t.csv", "--device", "cpu")
    assert "1: (no group) (1)" in lines_of(result.stdout)["groups"]
    (tmp_path / "t.csv").unlink()
    described = tmp_path / "cluster.yaml"
    described.write_text("class: LocalCluster\nadapt: {minimum: 0, maximum: 30}\n")
    result = invoke("plan", str(slides), "--cluster", str(described))
    assert result.exit_code == 0, result.output
    told = lines_of(result.stdout)
    assert told["cells"].strip() == "120"
    assert "3: slide-0 (40), slide-1 (40), slide-2 (40)" in told["groups"]
    assert "4 of 32 cells" in told["shards"]
    assert f"30; LocalCluster started from {described}" in told["workers"]
    assert "500.00 MiB for each worker" in told["memory"]
    assert "14.65 GiB in all" in told["memory"]
    assert "time" not in told  # nothing is known of the machines of a cluster
    assert list(tmp_path.iterdir()) == [described]


def test_a_plan_says_what_a_run_in_the_folder_has_done(
    slides: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_batch.dry_run.try_out", lambda *_: Trial(500 * MIB, 2.0))
    run_dir = tmp_path / "run"
    options = [str(slides), "--device", "cpu", "--workers", "1", "-o", str(run_dir)]
    result = invoke("plan", *options)
    assert lines_of(result.stdout)["cells"].strip() == "120"
    assert not run_dir.exists()

    shutil.copytree(undisturbed, run_dir)
    lost = min(run_dir.glob("shards/*.json"))
    cells = json.loads(lost.read_text())["cells"]
    lost.unlink()
    before = snapshot(run_dir)
    told = lines_of(invoke("plan", *options).stdout)
    assert told["cells"].strip() == f"120, {120 - cells} of them done"
    assert told["time"].strip().startswith(f"about {cells / 2:.0f} s ")
    told = lines_of(invoke("plan", *options, "--force").stdout)
    assert told["cells"].strip() == "120"
    assert snapshot(run_dir) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-o", "IN/results"], "lies inside the input"),
        (["-o", "OTHER"], "not empty and does not hold an earlier run"),
        (["-o", "OTHER/notes.txt"], "cannot be used for results (not a directory)"),
        (["-o", "DONE"], "already holds a finished run"),
        (["--workers", "1000"], "1000 workers would have "),
        (["--coverage", "2"], "a coverage of 2 is not possible"),
        (["--profile", "mine.yaml"], "mine.yaml"),
        (["--wbc-counts", "none.csv"], "none.csv"),
        (["--stall-timeout", "0"], "cannot be given up after 0 s"),
    ],
)
def test_what_the_run_would_refuse_is_refused(
    options: list[str], sentence: str, slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    places = {"IN": slides, "OTHER": tmp_path / "other", "DONE": undisturbed}
    for word, place in places.items():
        options = [option.replace(word, str(place)) for option in options]
    result = invoke("plan", slides, "--device", "cpu", *options)
    assert result.exit_code in (ExitCode.FATAL, ExitCode.USAGE)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_running_cluster_is_asked(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr("wbc_batch.dry_run.try_out", lambda job, _: tried.append(job))
    options = {"device": "cuda", "precision": "fp16"}  # which this machine may lack
    with dask_cluster(tmp_path, workers=2) as cluster:
        planned = plan_run(make_request(slides / "slide-0", **options, scheduler_file=cluster.file))
    assert [(job.device, job.precision) for job in tried] == [("auto", "auto")]
    assert 1 <= planned.workers <= 2  # the second may still be on its way
    assert planned.threads_per_worker == 1
    assert planned.memory_limit > 100 * MIB
    assert (planned.worker_memory, planned.seconds) == (None, None)


def test_cells_that_kill_leave_the_memory_unknown(
    slides: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_batch.engine.trial._classify_twice", _die)
    assert try_out(job, list(list_cells([slides / "slide-0"]))) is None


def test_no_room_for_temporary_files_is_told(
    slides: Path, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    cells = list(list_cells([slides / "slide-0"]))
    with pytest.raises(IncompleteRunError, match=r"temporary files cannot be written.*TMPDIR"):
        try_out(job, cells)
    with (
        pytest.raises(IncompleteRunError, match=r"temporary files cannot be written.*TMPDIR"),
        local_workers(1, 1, 2**30),
    ):
        pass


def _die(*_: object) -> None:
    os.abort()
