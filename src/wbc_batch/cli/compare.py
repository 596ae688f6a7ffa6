"""``wbc-batch compare``."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_batch.cli.shared import JsonOption, print_json, say
from wbc_batch.schema import COMPARISON_PAGE

__all__ = ["compare"]


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of a finished run.")],
    second: Annotated[
        Path, typer.Argument(metavar="RUN_B", help="Folder of another run on the same cells.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the comparison.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing comparison.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs, or two models, cell by cell."""
    from rich.console import Console

    from wbc_batch.rebuild import compare_runs
    from wbc_batch.report.terminal import print_comparison

    comparison = compare_runs(first, second, output, force)
    if as_json:
        print_json(comparison.to_dict())
        return
    print_comparison(comparison, Console())
    say(f"\nPage: {output / COMPARISON_PAGE}")
