"""Workers of running clusters, and clusters that a file describes."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.security import Security
from runs import command, dask_cluster, dask_process, powerless, wait_for, worker_processes

from wbc_batch.engine import clusters, machine, preflight
from wbc_batch.engine.capacity import cores_beside_gpus, cores_for_dask
from wbc_batch.engine.cluster_file import read_cluster_file
from wbc_batch.engine.crew import choose_crew
from wbc_batch.engine.execute import execute
from wbc_batch.engine.plan import Job, plan_shards
from wbc_batch.engine.preflight import check_workers
from wbc_batch.errors import ClusterError, ExitCode, IncompleteRunError, InputError, ModelError
from wbc_batch.run import classify_paths
from wbc_batch.sources import Cell, list_cells

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("blank_drawings")]


@pytest.fixture(scope="module")
def foreign() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        yield cluster


# --- somebody else's


def test_a_running_cluster_is_used_and_left_running(
    slides: Path, undisturbed: Path, foreign: LocalCluster, tmp_path: Path
) -> None:
    workers = psutil.Process(foreign.workers[0].pid)
    run_dir = tmp_path / "run"
    summary = classify_paths(slides, run_dir, device="cpu", scheduler=foreign.scheduler_address)
    assert summary.cells == 120
    assert (run_dir / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()
    record = json.loads((run_dir / "run.json").read_text())
    assert (record["workers"], record["threads_per_worker"]) == (1, 2)
    with Client(foreign.scheduler_address) as client:
        assert len(client.nthreads()) == 1
    assert workers.is_running()  # the very same process


def test_workers_that_do_not_fit_are_named(
    foreign: LocalCluster, job: Job, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [next(iter(list_cells([slides])))]
    shards = Path(job.shards)
    with clusters.existing_workers(foreign.scheduler_address) as client:
        assert check_workers(client, job, seen, 60) == (2, "fp32")
        assert not list(shards.iterdir())
        zarr.create_array(tmp_path / "crops.zarr", data=np.full((2, 40, 40, 3), 200, np.uint8))
        packed = shutil.make_archive(str(tmp_path / "crops"), "zip", tmp_path / "crops.zarr")
        assert check_workers(client, job, list(list_cells([f"zip::{packed}"])), 60) == (2, "fp32")
        with pytest.raises(ClusterError, match=r"does not see .*missing; put it on a file system"):
            check_workers(client, job, [Cell("missing", "1.png", None, "")], 60)
        with pytest.raises(ClusterError, match="has a different model"):
            check_workers(client, replace(job, model_digest="0" * 32), seen, 60)
        with pytest.raises(ClusterError, match=r"cannot load the model .*no/such"):
            check_workers(client, replace(job, model="no/such"), seen, 60)
        monkeypatch.setattr(preflight, "version", lambda _: "99.0")
        with pytest.raises(ClusterError, match=r"has wbc-napari .*; install 99\.0"):
            check_workers(client, job, seen, 60)


def test_workers_that_are_long_in_answering_end_a_run_that_can_be_continued(job: Job) -> None:
    class Hanging:
        """A client of Dask whose workers import torch from a busy file server."""

        async def nthreads(self) -> dict[str, int]:
            return dict.fromkeys("abc", 1)

        async def run(self, *_: object, **__: object) -> None:
            await asyncio.sleep(60)

        def sync(self, question: Callable[[], Coroutine]) -> object:
            return asyncio.run(question())

    crew = choose_crew(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(IncompleteRunError, match="not all 3 Dask workers answered within 1 s"):
        crew.muster(Hanging(), job, [], 1)


def test_worker_errors_reach_the_user(foreign: LocalCluster, job: Job, slides: Path) -> None:
    def run(its_job: Job, source: Path = slides) -> None:
        specs = plan_shards(list_cells([source]), its_job, 50)
        execute(client, specs, lambda _: None, 60)

    with clusters.existing_workers(foreign.scheduler_address) as client:
        with pytest.raises(ModelError, match="a different model on the workers"):
            run(replace(job, model_digest="0" * 32))
        with pytest.raises(IncompleteRunError, match="repeat the command to continue"):
            run(replace(job, shards="/proc/no/such"))
        away = [Cell("not-mounted", "1.png", None, "")]
        with pytest.raises(IncompleteRunError, match="does not see not-mounted"):
            execute(client, plan_shards(away, job, 50), lambda _: None, 60)


def test_workers_without_the_package_are_named(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "wbc_batch").mkdir()
    (tmp_path / "wbc_batch" / "__init__.py").write_text("raise ImportError('none here')")
    with (
        dask_cluster(tmp_path, PYTHONPATH=str(tmp_path)) as cluster,
        pytest.raises(ClusterError, match=r"does not have this version of wbc-napari .*none here"),
    ):
        classify_paths(slides, tmp_path / "run", scheduler_file=cluster.file)
    assert not list((tmp_path / "run" / "shards").iterdir())


def test_workers_whose_files_cannot_be_read_are_named_before_the_work(
    slides: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    options = ("--scheduler-file", str(tmp_path / "scheduler.json"))
    whole = [*powerless(), *command(slides, run_dir, *options)]
    with dask_cluster(tmp_path) as cluster:
        with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
            client.run(os.umask, 0o777)
        run = subprocess.run(whole, capture_output=True, text=True)
    assert run.returncode == ExitCode.FATAL
    assert "writes files to" in run.stderr
    assert "that this machine cannot read (permission denied)" in run.stderr
    assert not list((run_dir / "shards").iterdir())


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    for kind, port in (("tcp", 9), ("tls", 9)):
        address = f"{kind}://127.0.0.1:{port}"
        with (
            pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address}"),
            clusters.existing_workers(address, timeout=0.5),
        ):
            pass
    with (
        pytest.raises(ClusterError, match=r"none\.json: there is no such file"),
        clusters.existing_workers(None, tmp_path / "none.json"),
    ):
        pass


def test_tls_takes_the_certificates_that_dask_is_configured_with(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here"]
    try:
        subprocess.run(
            [*request, "-keyout", key, "-out", cert, "-days", "1"], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate")
    tls = {"distributed.comm.tls.ca-file": str(cert)}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"distributed.comm.tls.{role}.cert": str(cert)}
        tls |= {f"distributed.comm.tls.{role}.key": str(key)}
    with (
        dask.config.set(tls),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            security=Security(require_encryption=True),
            protocol="tls://",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
    ):
        assert cluster.scheduler_address.startswith("tls://")
        classify_paths(slides, tmp_path / "run", device="cpu", scheduler=cluster.scheduler_address)
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (undisturbed / "cells.csv").read_bytes()


# --- GPUs


def test_gpu_runs_use_workers_that_offer_a_gpu_only(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The GPU is a resource that Dask counts, so that this can be seen without one."""

    def pretend(device: str | None) -> None:
        """Let a worker say that it would compute on a device, or cannot."""
        from dataclasses import replace

        import torch

        from wbc_batch.engine import preflight
        from wbc_batch.errors import InputError

        plain = preflight.try_model

        def tried(*arguments):
            if device is None:
                raise InputError("the device 'cuda' was not found")
            return replace(plain(*arguments), device=torch.device(device))

        preflight.try_model = tried

    with LocalCluster(
        n_workers=0,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        specification = cluster.new_worker_spec()
        (spec,) = specification.values()
        with_gpu = {**spec, "options": spec["options"] | {"resources": {"GPU": 1}}}
        cluster.worker_spec = {"cpu": spec, "gpu": with_gpu}
        cluster.sync(cluster._correct_state)
        with Client(cluster) as client:
            client.wait_for_workers(2)
            names = {w["name"]: at for at, w in client.scheduler_info()["workers"].items()}
            with pytest.raises(
                ClusterError, match=f"{names['gpu']} offers a GPU but would compute"
            ):
                classify_paths(slides, tmp_path / "run", scheduler=cluster.scheduler_address)
            client.run(pretend, "cuda", workers=[names["gpu"]])
            client.run(pretend, None, workers=[names["cpu"]])  # which does not matter
            classify_paths(slides, tmp_path / "run", scheduler=cluster.scheduler_address)
            ran = client.run(lambda dask_worker: bool(dask_worker.state.executed_count))
    assert ran == {names["gpu"]: True, names["cpu"]: False}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["workers"] == 1
    assert (tmp_path / "run" / "cells.csv").read_bytes() == (undisturbed / "cells.csv").read_bytes()


def test_workers_with_a_gpu_share_the_cores_of_their_machine() -> None:
    class Answer:
        def nthreads(self) -> dict[str, int]:
            return dict.fromkeys(cores, 1)

    cores = {"tcp://a:1": 16, "tcp://a:2": 16, "tcp://b:1": 12}
    assert cores_beside_gpus(Answer(), cores) == 8
    assert cores_for_dask(Answer()) == 1


def test_workers_that_would_not_compute_alike_are_refused(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from wbc_batch.classifier import devices\n"
        "plain = devices.choose_precision\n"
        "def choose(precision, device):\n"
        "    return 'fp16' if precision == 'auto' else plain(precision, device)\n"
        "devices.choose_precision = choose\n"
    )
    preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(tmp_path / "other.py")])}
    options = ("--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
    with (
        dask_cluster(tmp_path) as cluster,
        dask_process("worker", "--scheduler-file", str(cluster.file), *options, **preload),
    ):
        with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        with pytest.raises(
            ClusterError, match=r"the same precision \(.*fp16 on tcp.*--precision fp32"
        ):
            classify_paths(
                slides, tmp_path / "run", device="cpu", backend="torch", scheduler_file=cluster.file
            )


# --- started from a file


def test_workers_here_take_commands_from_the_run_only() -> None:
    with clusters.local_workers(1, 1, 2**30) as client:
        port = int(client.scheduler.address.rpartition(":")[2])
        strangers = [
            {"address": f"tcp://127.0.0.1:{port}"},
            {"address": f"tls://127.0.0.1:{port}", "security": Security.temporary()},
        ]
        for stranger in strangers:
            with pytest.raises(OSError, match=r"closed|refused|Timed out|TLS|SSL"):
                Client(**stranger, timeout=3)
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_cluster_is_started_from_a_file_and_closed(
    slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("class: LocalCluster\nn_workers: 0\nadapt: {minimum: 1, maximum: 2}\n")
    before = set(psutil.Process().children(recursive=True))
    classify_paths(slides, tmp_path / "run", device="cpu", cluster=file)
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (undisturbed / "cells.csv").read_bytes()
    # Shards are cut for all that may come, although the run begins with the first.
    assert json.loads((tmp_path / "run" / "run.json").read_text())["workers"] == 2
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in left if "spawn_main" in " ".join(process.cmdline())]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read .*no such file"),
        ("a: [", r"is not a valid YAML file \(error in line 1\)"),
        ("[" * 5000, "is not a valid YAML file"),
        ("n_workers: 2", "does not say which class"),
        (
            "class: FastCluster",
            "FastCluster is not known; give its full name, or one of LocalCluster",
        ),
        ("class: pathlib.Path", r"pathlib\.Path is not a class of Dask clusters"),
        ("class: nonesuch.Cluster", "needs a package that is not installed .*install nonesuch"),
        ("class: ..LocalCluster", r"\.\.LocalCluster is not known"),
        (
            "class: distributed.deploy.Cluster",
            r"distributed\.deploy\.Cluster is not a class of Dask",
        ),
        ("class: LocalCluster\nstart: 2024-13-45", "is not a valid YAML file"),
        ("class: LocalCluster\nadapt: 3", "adapt should be like"),
        ("class: LocalCluster\nadapt: {maximum: none}", "adapt should be like"),
        ("class: LocalCluster\nadapt: {interval: quick}", "adapt should be like"),
        ("class: SLURMCluster\nwalltime: 12:00:00", r"quotes, like walltime: \"04:00:00\""),
        ("class: LocalCluster\n2: 3", "2 is not the name of an argument"),
    ],
)
def test_cluster_files_that_cannot_be_used(
    content: str | None, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=sentence):
        choose_crew(cluster=file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("n_wokers: 2", r"SLURMCluster did not start \(TypeError: .*'n_wokers'"),
        ("n_workers: 1\njob_extra_directives: [--no-such]", "did not start any workers"),
    ],
)
def test_what_a_class_says_is_told(content: str, sentence: str, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "cluster.yaml"
    file.write_text(f"class: SLURMCluster\ncores: 1\nmemory: 1GB\n{content}\n")
    with pytest.raises(ClusterError, match=sentence), clusters.started_workers(file, 60):
        pass


#: Tells Kubernetes' clients of an API that nobody answers for.
NOWHERE = """
current-context: x
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.mark.parametrize(
    ("content", "package", "sentence"),
    [
        ("LocalCUDACluster", "dask_cuda", "LocalCUDACluster .*it needs an NVIDIA GPU"),
        ("KubeCluster\nn_workers: 1", "dask_kubernetes", "KubeCluster .*it needs a Kubernetes"),
        ("KubeCluster\nn_wokers: 1", "dask_kubernetes", "'n_wokers'.*which arguments it takes"),
    ],
)
def test_what_is_not_there_is_told(
    content: str, package: str, sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "1.png").touch()
    (tmp_path / "cluster.yaml").write_text(f"class: {content}\n")
    (tmp_path / "nowhere").write_text(NOWHERE)
    code = "from wbc_batch.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "classify", "slides", "-o", "run", "--cluster", "cluster.yaml"],
        env=os.environ | {"KUBECONFIG": str(tmp_path / "nowhere"), "CUDA_VISIBLE_DEVICES": "0"},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == ExitCode.FATAL, run.stderr
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert re.search(sentence, run.stderr)


HANGING = """
import time
from distributed.deploy import Cluster

class HangingCluster(Cluster):
    def __init__(self, path):
        open(path, "w").close()
        time.sleep(600)
"""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a cluster that never comes up."""
    (tmp_path / "hanging.py").write_text(HANGING)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "cluster.yaml"
    file.write_text(f"class: hanging.HangingCluster\npath: {tmp_path / 'begun'}\n")
    return file


def test_nobody_waits_for_ever_for_a_cluster(slides: Path, hanging: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(IncompleteRunError, match="HangingCluster did not start within 2 s"):
        classify_paths(slides, tmp_path / "run", device="cpu", cluster=hanging, stall_timeout=2)
    assert time.monotonic() - began < 60
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "incomplete"


def test_ctrl_c_ends_the_wait_for_a_cluster(slides: Path, hanging: Path, tmp_path: Path) -> None:
    whole = [*command(slides, tmp_path / "run"), "--cluster", str(hanging)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(whole, env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_for((tmp_path / "begun").exists)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=30)
    assert run.returncode == ExitCode.INTERRUPTED, errors
    assert errors.splitlines()[-1].endswith("repeat the same command to continue")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("workers", ["here", "from a file", "one, for a plan"])
def test_ctrl_c_in_a_terminal_is_for_the_first_process_only(
    workers: str, slides: Path, tmp_path: Path
) -> None:
    """It goes to all of them, also while workers start and import what they need."""
    whole = command(slides, tmp_path / "run", "--workers", "1")
    if workers == "from a file":
        file = tmp_path / "cluster.yaml"
        file.write_text("class: LocalCluster\nn_workers: 1\n")
        whole = [*command(slides, tmp_path / "run"), "--cluster", str(file)]
    elif workers == "one, for a plan":
        whole = [*whole[:3], "plan", str(slides)]
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        wait_for(lambda: worker_processes(run.pid))
        time.sleep(1)
        blocked = [
            int(
                re.search(r"SigBlk:\s(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1], 16
            )
            for process in worker_processes(run.pid)
        ]
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == ExitCode.INTERRUPTED, errors
    assert "KeyboardInterrupt" not in errors
    assert blocked == [1 << (signal.SIGINT - 1)]
    assert "interrupted" in errors.splitlines()[-1]


def test_ctrl_c_ends_the_wait_for_a_job(slides: Path, tmp_path: Path) -> None:
    """And takes the job out of the queue; with a batch system that never begins one."""
    pytest.importorskip("dask_jobqueue")
    for name, content in {
        "sbatch": "echo 17; touch submitted",
        "scancel": "echo $1 >ended",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{content}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "cluster.yaml").write_text(
        "class: SLURMCluster\ncores: 1\nmemory: 1GB\nn_workers: 1\n"
    )
    whole = [*command(slides, tmp_path / "run"), "--cluster", str(tmp_path / "cluster.yaml")]
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(whole, env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_for((tmp_path / "submitted").exists)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == ExitCode.INTERRUPTED, errors
    assert errors.splitlines()[-1].endswith("repeat the same command to continue")
    assert (tmp_path / "ended").read_text() == "17\n"


def test_nobody_waits_for_ever_for_a_first_worker(slides: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("class: LocalCluster\nn_workers: 0\n")
    with pytest.raises(
        IncompleteRunError, match="no worker of the LocalCluster started within 1 s"
    ):
        classify_paths(slides, tmp_path / "run", device="cpu", cluster=file, stall_timeout=1)


def test_a_gpu_cluster_offers_its_gpus_and_reads_a_shard_ahead(tmp_path: Path) -> None:
    pytest.importorskip("dask_cuda")
    file = tmp_path / "cluster.yaml"
    file.write_text("class: LocalCUDACluster\n")
    arguments = read_cluster_file(file).arguments
    assert (arguments["resources"], arguments["threads_per_worker"]) == ({"GPU": 1}, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 0}, "at least one"),
        ({"memory_limit": "much"}, "'much' is not an amount of memory"),
        ({"workers": 1, "scheduler": "tcp://x:1"}, "for workers on this machine"),
        ({"memory_limit": "1GiB", "scheduler_file": "x.json"}, "together with --scheduler-file"),
        ({"scheduler": "tcp://x:1", "cluster": "x.yaml"}, "--scheduler and --cluster"),
    ],
)
def test_workers_are_named_once(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        choose_crew(**options)


def test_a_small_input_gets_few_workers_unless_asked_for() -> None:
    assert replace(choose_crew("cpu"), workers=8, chosen=False).for_cells(40).workers == 2
    assert choose_crew("cpu", workers=3).for_cells(40).workers == 3


@pytest.mark.parametrize(
    ("wanted", "memory", "workers", "threads"),
    [(None, 64, 8, 1), (None, 3, 3, 2), (2, 64, 2, 4), (3, 64, 3, 2), (16, 64, 16, 1)],
)
def test_processes_and_their_threads_share_the_cores(
    wanted: int | None, memory: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPU_COUNT", 8)
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", memory * 2**30)
    crew = choose_crew("cpu", workers=wanted)
    assert (crew.workers, crew.threads) == (workers, threads)


def test_workers_know_the_threads_that_they_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those of the workers before them."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for threads in (2, 3):
        with clusters.local_workers(1, threads, 2**30) as client:
            told = client.run(os.getenv, "OMP_NUM_THREADS")
        assert [*told.values()] == [str(threads)]
    assert "OMP_NUM_THREADS" not in os.environ


def test_memory_is_shared_out_or_as_asked_for() -> None:
    assert choose_crew("cpu", workers=2, memory_limit="1.5 GiB").memory == 3 * 2**29
    with pytest.raises(InputError, match="'1e999' is not an amount of memory"):
        choose_crew("cpu", workers=2, memory_limit="1e999")
    one, four = (choose_crew("cpu", workers=count).memory for count in (1, 4))
    assert one == pytest.approx(4 * four, abs=4)
