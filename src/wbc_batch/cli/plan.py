"""``wbc-batch plan``: what a run would be, before there is one."""

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import typer

from wbc_batch.cli.shared import (
    BackendOption,
    ClusterOption,
    DeviceOption,
    GroupByOption,
    InputsArgument,
    JsonOption,
    MemoryLimitOption,
    ModelOption,
    PrecisionOption,
    SchedulerFileOption,
    SchedulerOption,
    WorkersOption,
    print_json,
)
from wbc_batch.progress import duration
from wbc_batch.schema import UNNAMED_GROUP

if TYPE_CHECKING:
    from wbc_batch.dry_run import RunPlan

__all__ = ["plan"]

_GROUPS_SHOWN = 10


def plan(
    inputs: InputsArgument,
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    group_by: GroupByOption = None,
    workers: WorkersOption = None,
    memory_limit: MemoryLimitOption = None,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what classify would do with the same options, and write nothing.

    Lists the cells, asks a running cluster for its workers, starts none, and has one process classify
    the first cells, to see how much memory a worker needs.
    """
    from wbc_batch.dry_run import plan_run
    from wbc_batch.sources import stdin_kept

    with stdin_kept(inputs) as kept:
        planned = plan_run(
            kept,
            model=model,
            device=device,
            precision=precision,
            backend=backend,
            group_by=group_by,
            workers=workers,
            memory_limit=memory_limit,
            scheduler=scheduler,
            scheduler_file=scheduler_file,
            cluster=cluster,
        )
    if as_json:
        print_json(asdict(planned))
    else:
        _print_plan(planned)


def _print_plan(planned: "RunPlan") -> None:
    lines = {
        "cells": f"{planned.cells:,}",
        "groups": _groups(planned.groups),
        "model": planned.model,
        "shards": f"{planned.shards:,} of {planned.shard_cells:,} cells each",
        "workers": _workers(planned),
        "memory": _memory(planned),
    }
    if planned.seconds is not None:
        lines["time"] = f"about {duration(planned.seconds)}"
    for name, text in lines.items():
        typer.echo(f"{name:8} {text}")


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
        return "not known: the process that tried the first cells died of them, or lacked memory"
    text = f"{format_bytes(planned.worker_memory)} for each worker (measured on the first cells)"
    if planned.workers is not None:
        text += f", {format_bytes(planned.worker_memory * planned.workers)} in all"
    if planned.memory_limit is not None:
        text += f"; limit {format_bytes(planned.memory_limit)} each"
    return text
