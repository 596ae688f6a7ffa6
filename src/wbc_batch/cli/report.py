"""``wbc-batch report``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wbc_batch.cli.shared import PROFILE_HELP, JsonOption, WbcCountsOption, print_json, say
from wbc_batch.schema import CELLS_FILE, DIFFERENTIAL_FILE, REVIEWED_FILE

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the report.  [default: the run's folder]",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="source|REGEX|FILE",
            help="Group the cells differently: by input, by what a pattern finds in their path, or "
            "by a CSV file with the columns group and name.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE", help=f"{PROFILE_HELP}  [default: the run's]", show_default=False
        ),
    ] = None,
    wbc_counts: WbcCountsOption = None,
    review: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|none",
            help="A reviewer's labels: a CSV file with cell_id, reviewed_label, reviewed_by, "
            "reviewed_at.  [default: those in the run's own cells.csv]",
        ),
    ] = None,
    anndata: Annotated[
        bool, typer.Option("--anndata", help="Also write cells.h5ad (needs the extra anndata).")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new report of a finished run, without classifying."""
    from rich.console import Console

    from wbc_batch.rebuild import rebuild_report
    from wbc_batch.report import print_differential, read_differential

    page = rebuild_report(
        run,
        output,
        profile=profile,
        wbc_counts=wbc_counts,
        groups=groups,
        review=review,
        anndata=anndata,
        force=force,
    )
    tables = {"differential": read_differential(page.with_name(DIFFERENTIAL_FILE))}
    after = page.with_name(REVIEWED_FILE)
    if after.exists():
        tables["reviewed"] = read_differential(after)
    if as_json:
        records = {name: table.to_json(orient="records") for name, table in tables.items()}
        print_json(
            {"report": str(page)} | {name: json.loads(text) for name, text in records.items()}
        )
        return
    console = Console()
    print_differential(tables["differential"], console)
    if "reviewed" in tables:
        kept = f" in {run / CELLS_FILE}" if review is None else ""
        say(f"\nAfter the review{kept}:\n")
        print_differential(tables["reviewed"], console, reviewed=True)
    say(f"\nReport: {page}")
