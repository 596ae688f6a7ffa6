"""``wbc-batch classify`` and ``draw``: cells in, a report out; cells to try it on."""

from dataclasses import asdict
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
    command_line,
    end,
    print_json,
    say,
)
from wbc_batch.errors import ExitCode
from wbc_batch.schema import DEFAULT_PROFILE, DIFFERENTIAL_FILE, PAGE

if TYPE_CHECKING:
    from wbc_batch.run import RunSummary

__all__ = ["classify", "draw"]


def classify(
    inputs: InputsArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ],
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
    """Classify cells and report them, per cell and per group.

    Each file in a folder or archive, each page of a stack, each crop of an array and each row of a table
    becomes a row of cells.csv. Cells are grouped by folder, unless --group-by says otherwise. Repeat the
    same command to continue a run that was interrupted.
    """
    from wbc_batch.progress import shown_progress
    from wbc_batch.run import classify_paths
    from wbc_batch.sources import stdin_kept

    try:
        with stdin_kept(inputs) as kept, shown_progress() as progress:
            summary = classify_paths(
                kept,
                output,
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
                force=force,
                stall_timeout=stall_timeout,
                progress=progress,
                command=command_line(),
            )
    except KeyboardInterrupt:
        end("interrupted; repeat the same command to continue", ExitCode.INTERRUPTED)
    if as_json:
        print_json(asdict(summary) | {"run_dir": str(summary.run_dir)})
    else:
        _print_summary(summary)
    raise typer.Exit(summary.exit_code)


def draw(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for slides/ and labels.csv."),
    ],
    slides: Annotated[int, typer.Option(metavar="N", help="Number of slides.")] = 3,
    cells: Annotated[int, typer.Option(metavar="N", help="Cells on each slide.")] = 100,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed draws the same cells.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw synthetic cells to try the program on.

    Writes one folder of images per slide under DIR/slides, and the class of each cell to DIR/labels.csv.
    """
    from wbc_batch.synthetic import write_slides

    paths = write_slides(output, slides=slides, cells=cells, seed=seed)
    if as_json:
        print_json({"slides": output / "slides", "cells": len(paths)})
    else:
        say(f"Drew {len(paths)} synthetic cells in {output / 'slides'}", err=True)


def _print_summary(summary: "RunSummary") -> None:
    from rich.console import Console

    from wbc_batch.report import print_differential, read_differential

    console = Console()
    print_differential(read_differential(summary.run_dir / DIFFERENTIAL_FILE), console)
    errors = f", {summary.errors} of them with errors (see errors.csv)" if summary.errors else ""
    say(
        f"\n{summary.cells} cells{errors}, {summary.cells_per_second:.0f} cells/s\n"
        f"Report: {summary.run_dir / PAGE}"
    )
