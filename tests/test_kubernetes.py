"""A real Kubernetes with Dask's operator; tests/kubernetes-on-one-machine.sh starts one on Debian."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from runs import command, wait_for

from wbc_batch.errors import ExitCode
from wbc_batch.ledger import committed

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]


def kubectl(*words: str) -> str:
    return subprocess.run(["kubectl", *words], capture_output=True, text=True, check=True).stdout


def pods(cluster: str, component: str) -> list[str]:
    """Names of the running pods of a cluster."""
    labels = f"--selector=dask.org/cluster-name={cluster},dask.org/component={component}"
    running = "--field-selector=status.phase=Running"
    return kubectl("get", "pods", "--output=name", labels, running).split()


def clusters() -> str:
    return kubectl("get", "daskclusters", "--output=name")


@pytest.fixture(scope="module", autouse=True)
def _kubernetes() -> None:
    pytest.importorskip("dask_kubernetes")
    asking = ["kubectl", "get", "daskclusters", "--request-timeout=5s"]
    if not shutil.which("kubectl") or subprocess.run(asking, capture_output=True).returncode:
        pytest.skip("no Kubernetes with Dask here; see tests/kubernetes-on-one-machine.sh")


def recipe(name: str, **environment: str) -> dict[str, Any]:
    """The cluster file of docs/clusters.md, with pods that see this machine's folders at their places."""
    blocks = (REPOSITORY / "docs" / "clusters.md").read_text().split("```yaml\n")
    (content,) = (block.split("```")[0] for block in blocks if "kind: DaskCluster" in block)
    description = yaml.safe_load(content)
    cluster = description["custom_cluster_spec"]
    cluster["metadata"]["name"] = name
    cluster["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] = name
    cluster["spec"]["worker"]["replicas"] = 2
    places = {"/usr", sys.prefix, sys.base_prefix, str(REPOSITORY), tempfile.gettempdir()}
    mounts = {f"folder-{number}": place for number, place in enumerate(sorted(places))}
    for part in ("worker", "scheduler"):
        spec = cluster["spec"][part]["spec"]
        spec["volumes"] = [
            {"name": name, "hostPath": {"path": place}} for name, place in mounts.items()
        ]
        (container,) = spec["containers"]
        container |= {
            "image": "localhost/empty:1",
            "command": [sys.executable, "-m"],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "volumeMounts": [{"name": name, "mountPath": place} for name, place in mounts.items()],
        }
        container.pop("resources", None)
    return description


def described(path: Path, description: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(description))
    return path


def test_workers_are_pods_and_end_with_the_run(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    file = described(tmp_path / "cluster.yaml", recipe("wbc-plain"))
    run = subprocess.run(
        command(slides, tmp_path / "run", "--cluster", str(file)), capture_output=True, text=True
    )
    assert run.returncode == ExitCode.OK, run.stderr
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (undisturbed / "cells.csv").read_bytes()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["workers_from"].startswith("KubeCluster started from")
    assert "wbc-plain" not in clusters()
    wait_for(lambda: not pods("wbc-plain", "worker"))


def test_whatever_is_killed_the_rows_are_the_same(
    slides: Path, undisturbed: Path, traps: str, tmp_path: Path
) -> None:
    slow = {"DASK_DISTRIBUTED__WORKER__PRELOAD": traps, "TRAP_SECONDS": "0.8"}
    file = described(tmp_path / "cluster.yaml", recipe("wbc-killed", **slow))
    run_dir = tmp_path / "run"
    again = command(slides, run_dir, "--cluster", str(file))
    try:
        with subprocess.Popen(again, env=os.environ, stderr=subprocess.PIPE, text=True) as run:
            wait_for(lambda: bool(committed(run_dir)) or run.poll() is not None, seconds=180)
            assert run.poll() is None, run.stderr.read()
            victim = pods("wbc-killed", "worker")[0]
            kubectl("delete", victim, "--grace-period=0", "--force")
            done = len(committed(run_dir))
            wait_for(lambda: len(committed(run_dir)) > done, seconds=120)
            run.kill()  # the client; the cluster outlives it
        assert "wbc-killed" in clusters()
        assert len(committed(run_dir)) > done
        assert not (run_dir / "cells.csv").exists()
        resumed = subprocess.run(again, capture_output=True, text=True)
        assert resumed.returncode == ExitCode.OK, resumed.stderr
        assert (run_dir / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()
        assert "wbc-killed" in clusters()  # joined, so not ours to close
    finally:
        kubectl("delete", "daskcluster", "wbc-killed", "--ignore-not-found", "--wait=false")
