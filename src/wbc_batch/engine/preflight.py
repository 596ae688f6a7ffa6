"""Whether workers that we did not start ourselves can do their part, asked before any work."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from dask.system import CPU_COUNT
from distributed import Client

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.runtime import try_model
from wbc_batch.engine.capacity import cores_beside_gpus, cores_for_dask, gpus_of_workers
from wbc_batch.engine.connection import asked, lacks_package
from wbc_batch.engine.plan import Job, model_digest
from wbc_batch.errors import ClusterError, IncompleteRunError, WbcError, reason
from wbc_batch.paths import exists
from wbc_batch.sources import Cell, is_url, list_cells

__all__ = ["check_workers"]

# Of asking, until it is believed that a worker cannot be reached: it may have died meanwhile.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class _View:
    """What a worker has and sees; `trouble` is empty where all is well.

    Precision and device are what it computes in and on; `probe` is the file that it wrote among the results.
    """

    version: str
    cores: int
    precision: str
    device: str
    trouble: str
    probe: Path


def check_workers(
    client: Client, job: Job, samples: Sequence[Cell], timeout: float
) -> tuple[int, str]:
    """Make sure that every worker can do its part, before any work; if some offer a GPU, only they matter.

    Parameters
    ----------
    client : distributed.Client
    job : Job
    samples : sequence of Cell
        One from each part of the input, to see whether workers can read them.
    timeout : float
        Seconds for all to answer: they import torch and read the model, perhaps all from one file server.

    Returns
    -------
    cores : int
        That every worker has to itself.
    precision : str
        That all of them compute in.

    Raises
    ------
    ClusterError
        If a worker lacks this version of wbc-napari, has another model, cannot read an input or
        cannot write results that this machine can read; or if they would not all compute in one
        precision.
    IncompleteRunError
        If no worker is left, or one does not answer in time.
    """
    token = Path(job.shards, f".probe-{uuid4().hex}")
    token.touch()
    try:
        for _ in range(_TRIES):
            look = partial(_look_around, token, job, tuple(samples))
            answers = _answers(client, look, timeout)
            if not any(isinstance(answer, OSError) for answer in answers.values()):
                break
        gpus = gpus_of_workers(client, job.device)
        if gpus:
            answers = {worker: answer for worker, answer in answers.items() if worker in gpus}
        ours = version("wbc-napari")
        complaints = {worker: _complaint(answer, ours) for worker, answer in answers.items()}
    finally:
        for left in token.parent.glob(f"{token.name}*"):
            left.unlink()
    for worker, complaint in sorted(complaints.items()):
        if complaint:
            raise ClusterError(f"the Dask worker {worker} {complaint}")
    views = {worker: view for worker, view in answers.items() if isinstance(view, _View)}
    for worker, view in sorted(views.items()):
        if gpus and view.device == "cpu":
            raise ClusterError(
                f"the Dask worker {worker} offers a GPU but would compute on its CPU; install a torch "
                "there that sees the GPU, or use --device cpu for all workers"
            )
    if not views:
        raise IncompleteRunError(
            "no Dask worker is left; find out why they ended, then repeat the command to continue"
        )
    cores = {worker: view.cores for worker, view in views.items()}
    threads = cores_beside_gpus(client, cores) if gpus else cores_for_dask(client)
    return threads, _common_precision(views)


def _common_precision(views: Mapping[str, _View]) -> str:
    by_precision = {view.precision: worker for worker, view in sorted(views.items())}
    if len(by_precision) > 1:
        found = ", ".join(f"{name} on {worker}" for name, worker in sorted(by_precision.items()))
        raise ClusterError(
            f"the Dask workers would not all compute in the same precision ({found}), so rows "
            "would differ; use workers of the same kind, or --precision fp32"
        )
    return next(iter(by_precision))


def _answers(
    client: Client, look: Callable[[], _View], timeout: float
) -> dict[str, _View | Exception]:
    """Ask each worker that is there; one that cannot be reached answers with an `OSError`."""
    workers = len(asked(client, client.nthreads, timeout))
    try:
        return asked(client, partial(client.run, look, on_error="return"), timeout)
    except TimeoutError as error:
        raise IncompleteRunError(
            f"not all {workers} Dask workers answered within {timeout:.0f} s; check which of them "
            "hang, then repeat the command to continue"
        ) from error


def _look_around(token: Path, job: Job, samples: Sequence[Cell]) -> _View:
    """Tell, on a worker, what it has and sees."""
    troubles = [_sample_trouble(cell, Path(job.base)) for cell in samples]
    model_trouble, precision, device = _try_model(job)
    probe = token.with_name(f"{token.name}-{uuid4().hex}")
    troubles += [_place_trouble(token, probe), model_trouble]
    trouble = next(filter(None, troubles), "")
    return _View(version("wbc-napari"), CPU_COUNT, precision, device, trouble, probe)


def _sample_trouble(cell: Cell, base: Path) -> str:
    """Why this worker cannot read a source; the images themselves may be as bad as they like."""
    try:
        if is_url(cell.store):
            next(list_cells([cell.store]))
            return ""
        place = base / cell.store
        if not place.exists():
            return f"does not see {place}; put it on a file system that all share"
        if place.is_dir():
            os.scandir(place).close()
        for path in (place, place / cell.member):
            if path.is_file():  # a member of an archive is none
                path.open("rb").close()
    except OSError as error:
        return f"cannot read {error.filename} ({reason(error)}); make it readable for the workers"
    except WbcError as error:
        return f"cannot read the input ({error})"
    return ""


def _place_trouble(token: Path, probe: Path) -> str:
    if not exists(token):
        return f"does not see {token.parent}; put it on a file system that all share"
    try:
        probe.touch()
    except OSError as error:
        return f"cannot write to {token.parent} ({reason(error)})"
    return ""


def _try_model(job: Job) -> tuple[str, str, str]:
    """Why this worker cannot use the model, or else what precision it would compute in, and on what."""
    try:
        bundle = read_bundle(job.model)
        runtime = try_model(bundle, job.device, job.precision, job.backend)
    except WbcError as error:
        return f"cannot load the model ({error})", "", ""
    if model_digest(bundle) != job.model_digest:
        return (
            (
                f"has a different model at {bundle.path} than this machine; install the same version "
                "of wbc-napari everywhere, or give a bundle that all can read"
            ),
            "",
            "",
        )
    return "", runtime.precision, runtime.device.type


def _complaint(answer: _View | Exception, ours: str) -> str:
    if isinstance(answer, Exception) and lacks_package(answer):
        return (
            f"does not have this version of wbc-napari ({answer}); install {ours} on every worker"
        )
    if isinstance(answer, Exception):
        return f"does not answer ({type(answer).__name__}: {answer})"
    if answer.version != ours:
        return f"has wbc-napari {answer.version}; install {ours}, the same as here, on every worker"
    return answer.trouble or _unreadable(answer.probe)


def _unreadable(probe: Path) -> str:
    """Why this machine cannot read what a worker writes."""
    try:
        probe.open("rb").close()
    except OSError as error:
        return (
            f"writes files to {probe.parent} that this machine cannot read ({reason(error)}); run "
            "the worker as the same user as the command, or with a umask that lets others read, "
            "such as 022"
        )
    return ""
