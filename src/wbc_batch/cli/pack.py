"""``wbc-batch pack``: cells of any origin in, one zarr store out."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_batch.cli.shared import GroupByOption, InputsArgument, JsonOption, end, print_json, say
from wbc_batch.errors import ExitCode

if TYPE_CHECKING:
    from wbc_batch.sources.pack import PackSummary

__all__ = ["pack"]


def pack(
    inputs: InputsArgument,
    output: Annotated[
        str,  # a path would take a slash from a URL before it could be refused
        typer.Option(
            "--output", "-o", metavar="STORE", help="The store to write, such as crops.zarr."
        ),
    ],
    group_by: GroupByOption = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Take about half the space, but read more slowly.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Also store each cell as this model sees it: a bundled model's name, or a "
            "bundle's directory.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack cells into one zarr store that is faster to read.

    Classifying the store gives the same rows as classifying the inputs: names, groups, boxes and labels are
    kept, and so is the reason why a cell could not be read. Crops are stored as they are, in 8-bit RGB. With
    --model, the store also holds the canonical crops, so that runs with that model, or with one trained from
    it, need not make them.
    """
    from wbc_batch.classifier import read_bundle
    from wbc_batch.engine.machine import cores
    from wbc_batch.progress import shown_progress
    from wbc_batch.sources import stdin_kept
    from wbc_batch.sources.pack import pack as pack_cells

    preprocessing = None if model is None else read_bundle(model).preprocessing
    try:
        with stdin_kept(inputs) as kept, shown_progress() as progress:
            summary = pack_cells(
                kept,
                output,
                group_by=group_by,
                compress=compress,
                preprocessing=preprocessing,
                cores=cores(),
                progress=progress,
            )
    except KeyboardInterrupt:
        end("interrupted; nothing was kept", ExitCode.INTERRUPTED)
    if as_json:
        print_json(asdict(summary) | {"store": str(summary.store)})
    else:
        _print_summary(summary, model)
    raise typer.Exit(ExitCode.CELL_ERRORS if summary.errors else ExitCode.OK)


def _print_summary(summary: "PackSummary", model: str | None) -> None:
    reads = "reads" if model is None else f"with {model} reads and prepares"
    errors = f", {summary.errors} of them unreadable" if summary.errors else ""
    times = summary.rate_after / summary.rate_before
    say(
        f"{summary.cells} cells{errors}, up to {summary.width} x {summary.height} pixels, "
        f"{summary.bytes / 1e6:.0f} MB in {summary.store}\n"
        f"The next run {reads} {summary.rate_after:.0f} cells/s from it, {times:.1f} times the "
        f"{summary.rate_before:.0f} cells/s of the inputs (measured on {summary.sample} cells)"
    )
