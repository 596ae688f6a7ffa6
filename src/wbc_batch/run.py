"""The whole journey of a run: list, plan, classify on workers, report."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wbc_batch.engine.execute import execute
from wbc_batch.engine.plan import plan_shards, shard_size, verified
from wbc_batch.engine.run_folder import (
    Record,
    clear,
    locked,
    recorded,
    to_continue,
    write_record,
)
from wbc_batch.errors import ExitCode, IncompleteRunError, RunError
from wbc_batch.files import unwritable
from wbc_batch.ledger import ShardResult, committed, committed_shards, labels_of
from wbc_batch.paths import resolved
from wbc_batch.progress import Progress, silent
from wbc_batch.records import now
from wbc_batch.report import write_reports
from wbc_batch.report.review import earlier_review
from wbc_batch.request import Request, make_request, refuse_overlap
from wbc_batch.schema import CELLS_FILE, DEFAULT_PROFILE
from wbc_batch.sources import AnyInput, list_cells

__all__ = ["RunSummary", "classify_paths"]

_log = logging.getLogger(__name__)


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


def classify_paths(
    inputs: AnyInput | Sequence[AnyInput],
    output: str | Path,
    *,
    model: str | Path = "default",
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    coverage: float | None = None,
    group_by: str | None = None,
    profile: str | Path = DEFAULT_PROFILE,
    wbc_counts: str | Path | None = None,
    workers: int | None = None,
    memory_limit: str | None = None,
    scheduler: str | None = None,
    scheduler_file: str | Path | None = None,
    cluster: str | Path | None = None,
    force: bool = False,
    stall_timeout: float = 600.0,
    progress: Progress = silent,
    command: str | None = None,
) -> RunSummary:
    """Classify cells on Dask workers and write the reports.

    The same call continues a run that was interrupted. A script that calls this needs the usual
    ``if __name__ == "__main__":``, because worker processes import it.

    Parameters
    ----------
    inputs : str, Path or sequence of them
        Folders, archives, stacks, arrays, tables and image files, see `wbc_batch.sources.list_cells`;
        for paths on standard input, see `wbc_batch.sources.stdin_kept`.
    output : str or Path
        The run directory; made if it does not exist.
    model : str or Path
        The name of a bundled model, or a bundle's directory.
    device, precision, backend : str
        See `wbc_batch.Classifier.load`.
    coverage : float, optional
        Adds the column ``prediction_set`` to ``cells.csv``: the classes that cannot be excluded, such that
        the true one is among them with this probability (`wbc_batch.classifier.conformal`).
    group_by : str, optional
        What cells are counted together, see `wbc_batch.sources.list_cells`.
    profile : str or Path
        Reference ranges of the report, see `wbc_batch.report.read_profile`.
    wbc_counts : str or Path, optional
        White blood cell counts by group, see `wbc_batch.report.wbc_counts.read_wbc_counts`.
    workers : int, optional
        Worker processes on this machine. Default: one for each core that has a GiB of memory, or one for
        the GPU.
    memory_limit : str, optional
        What each of them may use, such as ``2GiB``. Default: an equal share of this machine's memory.
    scheduler : str, optional
        Address of a running Dask scheduler, whose workers are used instead.
    scheduler_file : str or Path, optional
        The file that a running Dask scheduler wrote, instead of its address.
    cluster : str or Path, optional
        A file that describes a cluster to start and to close (`wbc_batch.engine.cluster_file`).
    force : bool
        Replace the run that `output` holds.
    stall_timeout : float
        Seconds without progress after which the run is given up.
    progress : callable
        Called with the number of cells done and the number of all cells.
    command : str, optional
        The command line that asks for the run, for its record.

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
    run_dir = Path(output)
    request = make_request(
        inputs,
        model=model,
        device=device,
        precision=precision,
        backend=backend,
        coverage=coverage,
        group_by=group_by,
        profile=profile,
        wbc_counts=wbc_counts,
        workers=workers,
        memory_limit=memory_limit,
        scheduler=scheduler,
        scheduler_file=scheduler_file,
        cluster=cluster,
        stall_timeout=stall_timeout,
    )
    refuse_overlap(request.inputs, run_dir)
    with unwritable(run_dir), locked(run_dir):
        record = None if force else to_continue(run_dir, request.settings())
        if record is None:
            clear(run_dir)
            record = {"started": now()}
        record["folder"] = str(resolved(run_dir))  # to know a run that was moved
        # Of a report that this run had before it lost shards: work of a person, which no shard holds.
        report = replace(request.report, review=earlier_review(run_dir / CELLS_FILE))
        record |= request.description(command)
        with recorded(run_dir, record), unwritable(run_dir):
            record |= _classify(request, run_dir, record, progress)
            write_record(run_dir, record)
            write_reports(run_dir, committed_shards(run_dir), request.thresholds, report)
    return _summary(run_dir, record)


def _classify(request: Request, run_dir: Path, record: Record, progress: Progress) -> Record:
    """Have all cells classified that are not yet; what ``run.json`` says of it."""
    begun = time.monotonic()
    before = sum(result.cells for result in committed(run_dir))
    if before:
        _log.info("%d of %d cells were already classified", before, request.listing.cells)
    if before < request.listing.cells:
        _classify_rest(request, run_dir, record, progress)
    seconds = time.monotonic() - begun
    results = committed(run_dir)
    cells = sum(result.cells for result in results)
    if cells < request.listing.cells:
        raise IncompleteRunError(
            f"{run_dir} holds {cells} rows for {request.listing.cells} cells, although all were "
            "classified: some of its shard files are missing, damaged, or not yet visible from "
            "this machine; repeat the command to continue"
        )
    if cells > request.listing.cells:
        raise RunError(
            f"{run_dir} holds {cells} rows for {request.listing.cells} cells; some of its shards "
            "do not belong to this run; add --force to start again"
        )
    return {
        "finished": now(),
        "seconds": round(seconds, 3),
        "worker_seconds": round(sum(result.seconds for result in results), 3),
        "cells_per_second": round((cells - before) / max(seconds, 1e-3), 1),
        "device": ", ".join(sorted({result.device for result in results})),
        "precision": ", ".join(sorted({result.precision for result in results})),
        "backend": ", ".join(sorted({result.backend for result in results})),
        "counts": {
            "cells": cells,
            "errors": sum(result.errors for result in results),
            "labels": labels_of(results),
        },
    }


def _classify_rest(request: Request, run_dir: Path, record: Record, progress: Progress) -> None:
    crew = request.crew
    with crew.open(request.stall_timeout) as client:
        done = committed(run_dir)
        # A continued run keeps its precision, whatever its workers would choose now,
        begun_in = done[0].precision if done else None
        job = request.job(run_dir, crew.threads, begun_in)
        found = crew.muster(client, job, request.samples, request.stall_timeout)
        job = replace(job, threads=found.threads, precision=found.precision)
        record |= {
            "workers": found.workers,
            "threads_per_worker": found.threads,
            "precision": found.precision,
        }
        # and its cuts, however many they are.
        size = record.setdefault("shard_cells", shard_size(request.listing.cells, found.workers))
        write_record(run_dir, record)

        ready = {result.shard_id for result in done}
        cells = sum(result.cells for result in done)
        progress(cells, request.listing.cells)

        def on_commit(result: ShardResult) -> None:
            nonlocal cells
            cells += result.cells
            progress(cells, request.listing.cells)

        listed = verified(list_cells(request.inputs, request.group_by), request.listing)
        specs = plan_shards(listed, job, size)
        pending = (spec for spec in specs if spec.shard_id not in ready)
        execute(client, pending, on_commit, request.stall_timeout, on_gpu=found.on_gpu)


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
