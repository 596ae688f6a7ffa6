"""``wbc-batch train`` and ``evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_batch.cli.shared import DeviceOption, JsonOption, print_json

__all__ = ["evaluate", "train"]


def train(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FOLDER", help="Training cells: folders with one folder per class."
        ),
    ],
    validation: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]FOLDER", help="Cells to choose the epoch and to calibrate on."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the training.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "custom",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs; the best one is kept.")] = 50,
    cells_per_epoch: Annotated[
        int, typer.Option(min=32, help="Cells drawn per epoch, classes equally often.")
    ] = 4096,
    noisy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A data set whose labels are partly wrong."),
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Synthetic cells to train on as well.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed trains the same model.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train a model on labelled cells and leave a bundle in OUTPUT/bundle."""
    from wbc_batch.training.folders import named_folders, train_folders
    from wbc_batch.training.train import Settings

    def show(row: dict[str, float]) -> None:
        figures = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch")
        typer.echo(f"epoch {row['epoch'] + 1:.0f}/{epochs}  {figures}", err=True)

    bundle = train_folders(
        name,
        named_folders(datasets),
        named_folders(validation),
        output,
        Settings(
            epochs=epochs,
            cells_per_epoch=cells_per_epoch,
            noisy=tuple(noisy or ()),
            seed=seed,
            device=device,
        ),
        drawn,
        show,
    )
    typer.echo(f"Model: {bundle.path}\nHistory: {output / 'history.png'}")


def evaluate(
    model: Annotated[str, typer.Argument(help="A bundled model's name, or a bundle's directory.")],
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]FOLDER", help="Folders with one folder per class."),
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Synthetic cells to evaluate on.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for the figures.")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write the figures into the bundle and its card.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labelled cells."""
    from rich.console import Console

    from wbc_batch.training.folders import evaluate_folders, named_folders
    from wbc_batch.training.terminal import print_evaluations

    evaluations = evaluate_folders(
        model, named_folders(datasets or []), drawn, device, output, card
    )
    if as_json:
        print_json({name: e.to_dict() for name, e in evaluations.items()})
    else:
        print_evaluations(evaluations, Console())
