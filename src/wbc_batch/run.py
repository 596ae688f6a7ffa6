"""The whole journey of a run: list, plan, classify on workers, report."""

import logging
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wbc_batch.classifier import Bundle, read_bundle
from wbc_batch.classifier.conformal import conformal_thresholds
from wbc_batch.classifier.torch_backend import choose_device
from wbc_batch.engine import clusters
from wbc_batch.engine.execute import execute
from wbc_batch.engine.ledger import SHARDS, ShardResult, committed, committed_shards, labels_of
from wbc_batch.engine.plan import (
    MIN_SHARD,
    Job,
    Listing,
    model_digest,
    plan_shards,
    shard_size,
    survey,
    verified,
)
from wbc_batch.engine.run_folder import (
    ERROR_LOG,
    Record,
    Settings,
    locked,
    now,
    start,
    versions,
    write_record,
)
from wbc_batch.errors import ExitCode, IncompleteRunError, InputError, RunError, WbcError
from wbc_batch.report import write_reports
from wbc_batch.sources import list_cells

__all__ = ["RunSummary", "classify_paths"]

_log = logging.getLogger(__name__)

#: Called with the number of cells done and the number of all cells.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came of a run.

    Attributes
    ----------
    run_dir : Path
        Holds ``cells.csv``, ``differential.csv``, ``errors.csv``, ``report.html``, ``run.json``.
    cells, errors : int
        Rows, and rows with ``status=error``.
    labels : dict of str to int
        Cells per label.
    seconds, cells_per_second : float
        Of the classification in this call; a continued run took longer in all.
    exit_code : ExitCode
    """

    run_dir: Path
    cells: int
    errors: int
    labels: dict[str, int]
    seconds: float
    cells_per_second: float
    exit_code: ExitCode


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, looked up and checked as far as that goes without work."""

    inputs: Sequence[str | Path]
    run_dir: Path
    listing: Listing
    bundle: Bundle
    model: str
    device: str
    precision: str
    workers: int
    threads: int
    scheduler: str | None
    stall_timeout: float
    progress: Progress

    def settings(self) -> Settings:
        return Settings(
            version=versions()["wbc-napari"],
            model=f"{self.bundle.name} ({model_digest(self.bundle)})",
            inputs=", ".join(str(Path(path).absolute()) for path in self.inputs),
            cells=f"{self.listing.cells} ({self.listing.digest})",
            device=self.device,
            precision=self.precision,
        )

    def job(self) -> Job:
        return Job(
            model=self.model,
            model_digest=model_digest(self.bundle),
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            base=str(Path.cwd()),
            shards=str((self.run_dir / SHARDS).absolute()),
        )


def classify_paths(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path = "default",
    device: str = "auto",
    precision: str = "auto",
    coverage: float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    force: bool = False,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> RunSummary:
    """Classify folders of cell images on Dask workers and write the reports.

    The same call continues a run that was interrupted. A script that calls this needs the usual
    ``if __name__ == "__main__":``, because worker processes import it.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Folders and image files, see `wbc_batch.sources.list_cells`.
    output : str or Path
        The run directory; made if it does not exist.
    model : str or Path
        The name of a bundled model, or a bundle's directory.
    device, precision : str
        See `wbc_batch.Classifier.load`.
    coverage : float, optional
        Adds the column ``prediction_set`` to ``cells.csv``: the classes that cannot be excluded, such that
        the true one is among them with this probability (`wbc_batch.classifier.conformal`).
    workers : int, optional
        Worker processes on this machine. Default: one for each core, or one for the GPU.
    scheduler : str, optional
        Address of a running Dask scheduler, whose workers are used instead.
    force : bool
        Replace the run that `output` holds.
    stall_timeout : float
        Seconds without progress after which the run is given up.
    progress : callable, optional
        Called with the number of cells done and the number of all cells.

    Returns
    -------
    RunSummary

    Raises
    ------
    InputError
        If an input or option cannot be used.
    RunError
        If `output` cannot be used, or holds another run. With the exit code 4, if the run was given
        up; the same call continues it.
    ModelError, ClusterError
        If the model or the workers cannot be used.
    """
    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    run_dir = Path(output)
    count, threads = _crew(workers, scheduler, device)
    listing = survey(list_cells(paths))
    _refuse_overlap(paths, run_dir)
    bundle = read_bundle(model)
    thresholds = _set_thresholds(bundle, coverage)
    request = _Request(
        inputs=paths,
        run_dir=run_dir,
        listing=listing,
        bundle=bundle,
        # A bundled model is found by its name wherever the package is; any other by its place.
        model=str(bundle.path.resolve()) if bundle.path == Path(model) else str(model),
        device=device,
        precision=precision,
        workers=count if workers else min(count, -(-listing.cells // MIN_SHARD)),
        threads=threads,
        scheduler=scheduler,
        stall_timeout=stall_timeout,
        progress=progress or (lambda _done, _all: None),
    )
    with locked(run_dir):
        record = start(run_dir, request.settings(), force) or {"started": now()}
        record |= _description(request)
        record["prediction_sets"] = coverage and {"coverage": coverage, "thresholds": thresholds}
        with _recorded(run_dir, record):
            record |= _classify(request, record)
            write_record(run_dir, record)
            write_reports(run_dir, committed_shards(run_dir), thresholds)
    return _summary(run_dir, record)


def _set_thresholds(bundle: Bundle, coverage: float | None) -> list[float] | None:
    if coverage is None:
        return None
    if not 0.0 < coverage < 1.0:
        raise InputError(
            f"a coverage of {coverage:g} cannot be promised; give one between 0 and 1, such as 0.95"
        )
    return conformal_thresholds(bundle.conformal_scores(), coverage).tolist()


def _crew(workers: int | None, scheduler: str | None, device: str) -> tuple[int, int]:
    """Worker processes, and cores for each."""
    if scheduler is not None:
        if workers is not None:
            raise InputError("workers can be chosen for this machine only, not for a scheduler")
        return 0, 1  # one core for each thread that the cluster's owner gave to Dask
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers cannot work; ask for at least one")
    count = workers or clusters.default_workers(choose_device(device).type)
    return count, max(clusters.cores() // count, 1)


def _refuse_overlap(inputs: Sequence[str | Path], run_dir: Path) -> None:
    place = run_dir.resolve()
    for path in inputs:
        if place.is_relative_to(Path(path).resolve()):
            raise InputError(
                f"the results folder {run_dir} lies inside the input {path}, where its files would "
                "be taken for cells; name a folder outside"
            )


def _description(request: _Request) -> Record:
    bundle = request.bundle
    return {
        "state": "running",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "directory": str(Path.cwd()),
        "inputs": [Path(path).as_posix() for path in request.inputs],
        "input_digest": request.listing.digest,
        "cells": request.listing.cells,
        "model": {
            "name": bundle.name,
            "sha256": bundle.sha256,
            "preprocessing": asdict(bundle.preprocessing),
        },
        "settings": asdict(request.settings()),
        "versions": versions(),
        "scheduler": request.scheduler,
        "finished": None,
        "error": None,
    }


@contextmanager
def _recorded(run_dir: Path, record: Record) -> Iterator[None]:
    """Keep ``run.json`` true, whatever happens inside."""
    write_record(run_dir, record)
    try:
        yield
    except BaseException as error:
        record["state"] = _state_after(error)
        record["error"] = str(error) or type(error).__name__
        if not isinstance(error, WbcError | KeyboardInterrupt):
            log = run_dir / ERROR_LOG
            log.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            error.__notes__ = [f"the traceback is in {log}"]
        with suppress(OSError):  # a full disk must not hide what went wrong
            write_record(run_dir, record)
        raise
    record["state"] = "finished"
    write_record(run_dir, record)


def _state_after(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "incomplete" if isinstance(error, IncompleteRunError) else "failed"


def _classify(request: _Request, record: Record) -> Record:
    """Have all cells classified that are not yet; what ``run.json`` says of it."""
    begun = time.monotonic()
    before = sum(result.cells for result in committed(request.run_dir))
    if before:
        _log.info("%d of %d cells were classified before", before, request.listing.cells)
    if before < request.listing.cells:
        with _workers(request) as client:
            _classify_rest(request, record, client)
    seconds = time.monotonic() - begun
    results = committed(request.run_dir)
    cells = sum(result.cells for result in results)
    if cells != request.listing.cells:
        raise RunError(
            f"{request.run_dir} holds {cells} rows for {request.listing.cells} cells; its shards "
            "do not belong to this run, so add --force to begin anew"
        )
    return {
        "finished": now(),
        "seconds": round(seconds, 3),
        "worker_seconds": round(sum(result.seconds for result in results), 3),
        "cells_per_second": round((cells - before) / max(seconds, 1e-3), 1),
        "device": ", ".join(sorted({result.device for result in results})),
        "precision": ", ".join(sorted({result.precision for result in results})),
        "counts": {
            "cells": cells,
            "errors": sum(result.errors for result in results),
            "labels": labels_of(results),
        },
    }


def _workers(request: _Request) -> AbstractContextManager[clusters.Client]:
    if request.scheduler is None:
        return clusters.local_workers(request.workers, request.threads)
    return clusters.existing_workers(request.scheduler)


def _classify_rest(request: _Request, record: Record, client: clusters.Client) -> None:
    if request.scheduler is not None:
        places = [Path(path).absolute() for path in request.inputs]
        clusters.check_workers(client, (request.run_dir / SHARDS).absolute(), places)
    record["workers"] = len(client.nthreads())
    # A continued run keeps its cuts, however many workers it has now.
    threads = sum(client.nthreads().values())
    size = record.setdefault("shard_cells", shard_size(request.listing.cells, threads))
    write_record(request.run_dir, record)

    done = committed(request.run_dir)
    ready = {result.shard_id for result in done}
    cells = sum(result.cells for result in done)
    request.progress(cells, request.listing.cells)

    def on_commit(result: ShardResult) -> None:
        nonlocal cells
        cells += result.cells
        request.progress(cells, request.listing.cells)

    specs = plan_shards(verified(list_cells(request.inputs), request.listing), request.job(), size)
    pending = (spec for spec in specs if spec.shard_id not in ready)
    execute(client, pending, on_commit, request.stall_timeout)


def _summary(run_dir: Path, record: Record) -> RunSummary:
    counts = record["counts"]
    return RunSummary(
        run_dir=run_dir,
        cells=counts["cells"],
        errors=counts["errors"],
        labels=counts["labels"],
        seconds=record["seconds"],
        cells_per_second=record["cells_per_second"],
        exit_code=ExitCode.CELL_ERRORS if counts["errors"] else ExitCode.OK,
    )
