"""``wbc-batch train``."""

from pathlib import Path
from typing import Annotated

import typer

from wbc_batch.cli.shared import DeviceOption, JsonOption, print_json, say

__all__ = ["train"]


def train(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DATASET",
            help="Training cells: folders with one folder per class, or prepared data sets.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the training.")
    ],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells for choosing the best epoch and for calibration.  [default: a prepared "
            "data set's validation split, or a fifth of the training cells]",
        ),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the model.")] = "custom",
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Network and training settings: compact, lite or seed.  [default: compact, or "
            "those of the --init model]",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Fine-tune this model, gently: a bundled model's name, or a bundle's directory.",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Part of the network to keep unchanged: none, early (all but the last stages) or "
            "body (all but the head).",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of epochs, if not the preset's."),
    ] = None,
    cells_per_epoch: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=32, help="Number of cells drawn per epoch, each class equally often."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", min=0.0, help="Peak learning rate, if not the preset's."),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Stop after this many epochs without improvement; 0 means never.",
        ),
    ] = 0,
    noisy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name of a data set whose labels are partly wrong."),
    ] = None,
    drawn: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of synthetic cells to train on as well.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed trains the same model.")
    ] = 0,
    device: DeviceOption = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier training in DIR.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on labeled cells.

    The model is written to DIR/bundle. If training is interrupted, the same command continues after the
    last complete epoch.
    """
    from wbc_batch.datasets.naming import named_folders, named_validation
    from wbc_batch.training.folders import train_folders
    from wbc_batch.training.progress import shown_training
    from wbc_batch.training.settings import choose

    settings = choose(
        preset,
        init,
        freeze=freeze,
        epochs=epochs,
        cells_per_epoch=cells_per_epoch,
        learning_rate=learning_rate,
        patience=patience,
        noisy=tuple(noisy or ()),
        seed=seed,
        device=device,
    )
    training, held = named_folders(datasets, "train"), named_validation(validation or [], datasets)
    with shown_training(settings) as shown:
        bundle = train_folders(
            name,
            training,
            held,
            output,
            settings,
            drawn,
            shown=shown,
            force=force,
        )
    if as_json:
        made = {"bundle": bundle.path, "name": bundle.name, "sha256": bundle.sha256}
        best = {"best_epoch": bundle.training["best_epoch"]}
        print_json(made | best | {"history": output / "history.csv"})
    else:
        say(f"Model: {bundle.path}\nHistory: {output / 'history.png'}")
