"""``wbc-batch dataset``: divide labelled cells into training, validation and test."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_batch.cli.shared import Command, JsonOption, print_json, say

__all__ = ["app"]

app = typer.Typer(
    help="Prepare labeled cells for training.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Prepare labeled cells for training."""


@app.command(cls=Command)
def prepare(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="New folder for the manifest; images stay where they are.",
        ),
    ],
    folders: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]FOLDER", help="Your own cells, in one folder per class."),
    ] = None,
    pbc: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder PBC_dataset_normal_DIB, as published."),
    ] = None,
    raabin: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Raabin-WBC: the folder that holds Train, TestA and TestB."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER=CLASS",
            help="Class that one of your folder names stands for; 'out_of_class' if none of the "
            "five.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Pattern whose first group is the patient or slide in NAME/path/of/file; cells of "
            "one stay in one split.",
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of your own cells to validate on.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of your own cells to test on.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same split.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Divide labeled cells into training, validation and test.

    The splits are listed, image by image, in DIR/manifest.csv, for wbc-batch train and wbc-batch evaluate.
    PBC and Raabin-WBC are divided as in the original project.
    """
    from rich.console import Console

    from wbc_batch.datasets.naming import class_folders
    from wbc_batch.datasets.prepare import prepare_dataset, read_label_names
    from wbc_batch.datasets.splits import Shares
    from wbc_batch.datasets.terminal import print_prepared, warnings
    from wbc_batch.progress import shown_progress

    with shown_progress() as progress:
        dataset = prepare_dataset(
            output,
            pbc=pbc,
            raabin=raabin,
            folders=class_folders(folders or []),
            labels=read_label_names(label or []),
            group_by=group_by,
            shares=Shares.of(validation, test),
            seed=seed,
            progress=progress,
        )
    remarks = warnings(dataset)
    for line in remarks:
        say(f"warning: {line}", fg="yellow", err=True)
    if as_json:
        print_json({"dataset": output, **dataset.record, "warnings": remarks})
    else:
        print_prepared(dataset, Console())
        say(f"Data set: {output}, manifest with SHA-256 {dataset.record['digest'][:16]}")
