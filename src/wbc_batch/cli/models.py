"""``wbc-batch model``: look at models, check and change them, bring them in and give them away."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_batch.cli.shared import JsonOption, print_json, say
from wbc_batch.errors import InputError, ModelError
from wbc_batch.files import is_folder, resolved

if TYPE_CHECKING:
    from wbc_batch.classifier import Bundle

__all__ = ["app"]

app = typer.Typer(
    help="Look at models, check, import, average, quantise and export them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[str, typer.Argument(help="A bundled model's name, or a directory.")]


class Format(StrEnum):
    """What a model can be exported as."""

    ONNX = "onnx"
    BIOIMAGEIO = "bioimageio"


@app.command("list")
def list_models(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of bundles; without it, the bundled models.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the bundled models, or those in a folder."""
    from wbc_batch.classifier.bundle import bundles_in, read_bundle

    if folder is not None and not is_folder(folder):
        raise InputError(f"there is no folder {folder}")
    rows = []
    for path in bundles_in(folder):
        name = path.name or resolved(path).name  # "." has none
        try:
            bundle = read_bundle(path)
            bundle.check_files()
        except ModelError as error:
            rows.append({"model": name, "path": str(path), "error": str(error)})
        else:
            described = {"model": name, "path": str(path), "name": bundle.name}
            rows.append(described | {"architecture": bundle.architecture, "sha256": bundle.sha256})
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        what = row.get("error") or f"{row['name']}, {row['architecture']}, {row['sha256'][:12]}"
        say(f"{row['model']}: {what}")
    if not rows:
        say(f"there are no models in {folder}")


@app.command()
def info(model: ModelArgument = "default", as_json: JsonOption = False) -> None:
    """Print what a model is, what it was trained on and how well it does."""
    from wbc_batch.classifier import read_bundle

    bundle = read_bundle(model)
    if as_json:
        print_json(asdict(bundle))
        return
    from rich.console import Console

    from wbc_batch.cli.model_facts import print_model

    print_model(bundle, Console())


@app.command()
def verify(model: ModelArgument = "default", as_json: JsonOption = False) -> None:
    """Check that a model is whole, loads and gives usable probabilities."""
    from wbc_batch.exchange import verify as check

    bundle = check.verify(model)
    facts = {"model": model, "name": bundle.name, "sha256": bundle.sha256, "verified": True}
    if as_json:
        print_json(facts)
    else:
        say(f"{model}: {bundle.name} is whole and runs, SHA-256 {bundle.sha256}")


@app.command("import")
def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="State dict: .pt or .pth of torch.save, or .safetensors.")
    ],
    arch: Annotated[str, typer.Option(help="Torchvision's name of the network, such as resnet18.")],
    classes: Annotated[str, typer.Option(help="The five classes in the order of the outputs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new bundle.")],
    size: Annotated[int, typer.Option(help="Side of the pictures in training, pixels.")] = 224,
    mean: Annotated[
        str, typer.Option(help="Red, green, blue that training took off, 0..1.")
    ] = "0,0,0",
    std: Annotated[str, typer.Option(help="Red, green, blue that it divided by.")] = "1,1,1",
    name: Annotated[str | None, typer.Option(help="The model's name; else the file's.")] = None,
    licence: Annotated[
        str, typer.Option(help="Of the weights, as an SPDX identifier.")
    ] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Make a model bundle of a checkpoint of a torchvision network."""
    from wbc_batch.exchange.importing import Foreign, import_checkpoint

    foreign = Foreign(
        architecture=arch,
        classes=tuple(part.strip() for part in classes.split(",")),
        size=size,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        name=name or checkpoint.stem,
        licence=licence,
    )
    _print_new(import_checkpoint(checkpoint, foreign, output), as_json)


@app.command()
def average(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DATASET",
            help="The cells that all of them were trained on: folders with one folder per class, or "
            "prepared data sets.",
        ),
    ],
    of: Annotated[
        list[str], typer.Option(metavar="MODEL", help="A model to average; name two or more.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new bundle.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells to calibrate on, as in the trainings; without it, a prepared data set's "
            "validation split, or a fifth of the training cells.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new model.")] = "average",
    as_json: JsonOption = False,
) -> None:
    """Average the weights of models of one preset: they know other laboratories better together."""
    from wbc_batch.datasets.naming import named_folders, named_validation
    from wbc_batch.training.average import average_folders

    held = named_validation(validation or [], datasets)
    bundle = average_folders(name, of, named_folders(datasets, "train"), held, output)
    _print_new(bundle, as_json)


@app.command()
def quantise(
    model: ModelArgument,
    calibration: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DATASET",
            help="Cells to calibrate on, such as those of the training: folders with one folder per "
            "class, or prepared data sets.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new bundle.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells to compare the accuracy on; without it, a prepared data set's validation split.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a faster network in 8-bit integers to a copy of a model, for OpenVINO.

    Refused if it loses more than 0.2 points of accuracy on the validation cells, or if less than 97 % of
    them keep their label.
    """
    from wbc_batch.datasets.naming import named_folders, named_validation
    from wbc_batch.exchange import quantise as quantising

    held = named_validation(validation or [], calibration)
    bundle, comparison = quantising.quantise(
        model, named_folders(calibration, "train"), held, output
    )
    if as_json:
        print_json({"bundle": str(output), "name": bundle.name} | asdict(comparison))
        return
    say(f"{output}: {bundle.name}, with an int8 network; compared with fp32:")
    for fact, value in asdict(comparison).items():
        say(f"  {fact}: {value}")


@app.command()
def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="New file, or new directory.")],
    kind: Annotated[
        Format,
        typer.Option("--format", help="One ONNX file, or a bioimage.io package (directory)."),
    ] = Format.ONNX,
    as_json: JsonOption = False,
) -> None:
    """Write a model as ONNX file or bioimage.io package: canonical crops in, probabilities out."""
    from wbc_batch.exchange import bioimageio_export, onnx_export

    write = {
        Format.ONNX: onnx_export.export_onnx,
        Format.BIOIMAGEIO: bioimageio_export.export_bioimageio,
    }[kind]
    bundle = write(model, output)
    if as_json:
        print_json({"output": str(output), "format": kind, "model_sha256": bundle.sha256})
    else:
        say(f"{output}: {bundle.name} as {kind}")


def _print_new(bundle: "Bundle", as_json: bool) -> None:
    if as_json:
        print_json({"bundle": bundle.path, "name": bundle.name, "sha256": bundle.sha256})
    else:
        say(f"{bundle.path}: {bundle.name}, SHA-256 {bundle.sha256}")


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise InputError(f"{option} must be three numbers, such as 0.5,0.5,0.5, not {text!r}")
    return numbers
