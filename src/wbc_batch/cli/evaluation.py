"""``wbc-batch evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_batch.cli.shared import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    command_line,
    print_json,
    say,
)
from wbc_batch.errors import InputError

if TYPE_CHECKING:
    from wbc_batch.evaluation.assessment import Assessment

__all__ = ["evaluate"]

_DATASET = "[NAME=]DATASET"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A bundled model's name, or a bundle's directory."),
    ],
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=_DATASET,
            help="Folders with one folder per class, or prepared data sets (their test split).",
        ),
    ] = None,
    unknown: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_DATASET,
            help="Cells that belong to none of the classes, in folders of any name.",
        ),
    ] = None,
    drawn: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of synthetic cells to evaluate on.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the results: tables, images and an HTML page.",
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write the results into the bundle and its model card.")
    ] = False,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Repeat the model's training without each data set in turn, and test on the one "
            "left out.",
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar=_DATASET, help="With --leave-one-out: also test on these each time."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --leave-one-out: number of epochs, if not as in the model's training.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labeled cells.

    With --leave-one-out, measure instead how well models trained like this one do on cells of a
    laboratory that they have not seen.
    """
    if leave_one_out:
        if unknown or card or drawn:
            raise InputError(
                "--leave-one-out measures how a model is trained, not the model itself; leave out "
                "--unknown, --card and --drawn"
            )
        if (precision, backend) != ("auto", "auto"):
            raise InputError(
                "--leave-one-out computes as in training; leave out --precision and --backend"
            )
        assessment = _leave_one_out(model, datasets, also, output, epochs, device)
    else:
        if also or epochs:
            raise InputError("--also and --epochs need --leave-one-out")
        from wbc_batch.datasets.naming import named_folders
        from wbc_batch.evaluation.folders import evaluate_folders

        assessment = evaluate_folders(
            model,
            named_folders(datasets or [], "test"),
            drawn,
            device,
            precision,
            backend,
            output,
            card,
            named_folders(unknown or [], "out_of_class"),
            command_line(),
        )
    _print(assessment, leave_one_out, output, as_json)


def _leave_one_out(
    model: str,
    datasets: list[str] | None,
    also: list[str] | None,
    output: Path | None,
    epochs: int | None,
    device: str,
) -> "Assessment":
    from wbc_batch.datasets.naming import named_folders
    from wbc_batch.evaluation.leave_one_out import leave_one_out
    from wbc_batch.training.progress import shown_training

    if output is None:
        raise InputError("--leave-one-out trains networks; choose a folder for them with -o")

    sources = named_folders(datasets or [], "train")
    others = named_folders(also or [], "test")
    return leave_one_out(
        model, sources, others, output, epochs, device, shown_training, command_line()
    )


def _print(assessment: "Assessment", summary: bool, output: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from wbc_batch.evaluation.terminal import print_assessment, print_summary

    if as_json:
        print_json(assessment.to_dict())
        return
    console = Console()
    if summary:
        print_summary(assessment.data_sets, console)
    else:
        print_assessment(assessment, console)
    if output is not None:
        page = "leave-one-out.html" if summary else "evaluation.html"
        say(f"Page: {output / page}")
