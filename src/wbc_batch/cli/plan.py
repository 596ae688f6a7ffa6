"""``wbc-batch plan``: what a run would be, before there is one."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_batch.cli.shared import (
    BackendOption,
    ClusterOption,
    CoverageOption,
    DeviceOption,
    ForceOption,
    GroupByOption,
    InputsArgument,
    JsonOption,
    MemoryLimitOption,
    ModelOption,
    PrecisionOption,
    ProfileOption,
    SchedulerFileOption,
    SchedulerOption,
    StallTimeoutOption,
    WbcCountsOption,
    WorkersOption,
    print_json,
    say,
)
from wbc_batch.progress import duration
from wbc_batch.schema import DEFAULT_PROFILE, UNNAMED_GROUP

if TYPE_CHECKING:
    from wbc_batch.dry_run import RunPlan

__all__ = ["plan"]

_GROUPS_SHOWN = 10


def plan(
    inputs: InputsArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the results; it may already hold part of the run.",
        ),
    ] = None,
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    group_by: GroupByOption = None,
    coverage: CoverageOption = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    wbc_counts: WbcCountsOption = None,
    workers: WorkersOption = None,
    memory_limit: MemoryLimitOption = None,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
    cluster: ClusterOption = None,
    stall_timeout: StallTimeoutOption = 600.0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what classify would do, without writing anything.

    Takes the options of classify. Lists the cells, asks a running cluster about its workers (it starts
    none), and classifies the first cells in one process to measure how much memory a worker needs. What
    classify would refuse is refused.
    """
    from wbc_batch.dry_run import plan_run
    from wbc_batch.request import make_request
    from wbc_batch.sources import stdin_kept

    with stdin_kept(inputs) as kept:
        request = make_request(
            kept,
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
        planned = plan_run(request, output, force)
    if as_json:
        print_json(asdict(planned))
    else:
        _print_plan(planned)


def _print_plan(planned: "RunPlan") -> None:
    done = f", {planned.done:,} of them done" if planned.done else ""
    lines = {
        "cells": f"{planned.cells:,}{done}",
        "groups": _groups(planned.groups),
        "model": planned.model,
        "shards": f"{planned.shards:,} of {planned.shard_cells:,} cells each",
        "workers": _workers(planned),
        "memory": _memory(planned),
    }
    if planned.seconds is not None:
        lines["time"] = f"about {duration(planned.seconds)} once the workers have started"
    for name, text in lines.items():
        say(f"{name:8} {text}")


def _groups(groups: dict[str, int]) -> str:
    shown = [
        f"{name or UNNAMED_GROUP} ({count:,})"
        for name, count in islice(groups.items(), _GROUPS_SHOWN)
    ]
    more = ["..."] if len(groups) > _GROUPS_SHOWN else []
    return f"{len(groups):,}: {', '.join(shown + more)}"


def _workers(planned: "RunPlan") -> str:
    count = "not known before they start" if planned.workers is None else f"{planned.workers:,}"
    cores = planned.threads_per_worker
    each = "" if cores is None else f", {cores} {'core' if cores == 1 else 'cores'} each"
    return f"{count}{each}; {planned.place}"


def _memory(planned: "RunPlan") -> str:
    from dask.utils import format_bytes

    if planned.worker_memory is None:
        return "not known: the process that tried the first cells crashed or ran out of memory"
    text = f"{format_bytes(planned.worker_memory)} for each worker (measured on the first cells)"
    if planned.workers is not None:
        text += f", {format_bytes(planned.worker_memory * planned.workers)} in all"
    if planned.memory_limit is not None:
        text += f"; limit {format_bytes(planned.memory_limit)} each"
    return text
