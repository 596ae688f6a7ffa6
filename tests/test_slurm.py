"""A real SLURM; tests/slurm-on-one-machine.sh starts one on Debian and Ubuntu."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from runs import TRAPS, command, wait_for

from wbc_batch.errors import ExitCode
from wbc_batch.ledger import committed

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


def squeue() -> str:
    return subprocess.run(
        ["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module", autouse=True)
def _slurm() -> None:
    pytest.importorskip("dask_jobqueue")
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM runs here; see tests/slurm-on-one-machine.sh")


def test_workers_are_jobs_and_end_with_the_run(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text(
        f"""
class: SLURMCluster
n_workers: 2
cores: 1
memory: 2GB
walltime: "00:10:00"
job_name: wbc-test
python: {sys.executable}
local_directory: {tmp_path}
log_directory: {tmp_path}
"""
    )
    code = "from wbc_batch.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "classify", slides, "-o", "run", "--device", "cpu",
         "--cluster", "cluster.yaml", "--stall-timeout", "120"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == ExitCode.OK, run.stderr
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (undisturbed / "cells.csv").read_bytes()
    assert list(tmp_path.glob("wbc-test-*.out"))  # workers ran as jobs
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["workers_from"] == "SLURMCluster started from cluster.yaml"
    wait_for(lambda: "wbc-test" not in squeue())


def recipe(command: str) -> str:
    """The batch script of docs/clusters.md, with another command."""
    blocks = (REPOSITORY / "docs" / "clusters.md").read_text().split("```")
    (script,) = (block for block in blocks if "#SBATCH" in block)
    lines = script.partition("\n")[2].splitlines()
    own = [f"{command} &" if line.startswith("wbc-batch") else line for line in lines]
    return "\n".join(line.replace("16 --mem=32G", "1 --mem=2G") for line in own) + "\n"


def test_a_job_at_its_wall_time_goes_on_in_the_next(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "traps.py").write_text(TRAPS)
    traps = f"DASK_DISTRIBUTED__WORKER__PRELOAD='{json.dumps([str(tmp_path / 'traps.py')])}'"
    words = " ".join(f"'{word}'" for word in command(slides, tmp_path / "run", "--workers", "1"))
    (tmp_path / "job.sh").write_text(recipe(f"env {traps} TRAP_SECONDS=0.05 {words}"))
    sbatch = [
        "sbatch",
        "--parsable",
        "--export=ALL",
        f"--output={tmp_path}/log",
        "--open-mode=append",
    ]
    number = subprocess.run(
        [*sbatch, tmp_path / "job.sh"], capture_output=True, text=True, check=True
    ).stdout.strip()
    log = tmp_path / "log"
    wait_for(lambda: len(committed(tmp_path / "run")) > 0)
    # What SLURM does by itself two minutes before the wall time.
    subprocess.run(["scancel", "--signal=TERM", "--batch", number], check=True)
    wait_for(lambda: "PENDING" in state(number))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "interrupted", log.read_text()
    assert "repeat the same command to continue" in log.read_text()
    # SLURM leaves a job that goes back into the queue alone for two minutes.
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)
    wait_for(lambda: not state(number))
    assert "cells were already classified" in log.read_text()
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (undisturbed / "cells.csv").read_bytes()


def state(number: str) -> str:
    """State of a job; empty when it has left the queue."""
    return subprocess.run(
        ["squeue", "--noheader", "--format=%T", f"--jobs={number}"], capture_output=True, text=True
    ).stdout.strip()
