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
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the training.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells to choose the epoch and to calibrate on; without it, a prepared data set's "
            "validation split, or a fifth of the training cells.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "custom",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Which network, trained how: compact, lite or seed.  "
            "[default: compact, or as the model of --init]"
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Train this model on, gently: a bundle or its name."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            help="Keep nothing (none), all but the last stages (early), or all but the head (body)."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, if not the preset's.")] = None,
    cells_per_epoch: Annotated[
        int | None, typer.Option(min=32, help="Cells drawn per epoch, classes equally often.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Peak of the learning rate, if not the preset's.")
    ] = None,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many epochs without gain; 0 is never.")
    ] = 0,
    noisy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A data set whose labels are partly wrong."),
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, help="Synthetic cells to train on as well.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed trains the same model.")] = 0,
    device: DeviceOption = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace another training in OUTPUT.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on labelled cells and leave a bundle in OUTPUT/bundle.

    Interrupted? The same command goes on after the last whole epoch.
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
