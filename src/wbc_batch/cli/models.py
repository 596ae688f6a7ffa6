"""``wbc-batch model``: look at models, check and change them, bring them in and give them away."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbc_batch.cli.shared import Command, JsonOption, print_json, say
from wbc_batch.errors import InputError, ModelError
from wbc_batch.paths import is_folder, resolved

if TYPE_CHECKING:
    from wbc_batch.classifier import Bundle

__all__ = ["app"]

app = typer.Typer(
    help="Show, check, import, average, quantise and export models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A bundled model's name, or a bundle's directory.")
]


class Format(StrEnum):
    """What a model can be exported as."""

    ONNX = "onnx"
    BIOIMAGEIO = "bioimageio"


@app.command("list", cls=Command)
def list_models(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="A folder of bundles; without it, the bundled models."),
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


@app.command(cls=Command)
def info(model: ModelArgument = "default", as_json: JsonOption = False) -> None:
    """Show a model's properties, training data and performance."""
    from wbc_batch.classifier import read_bundle

    bundle = read_bundle(model)
    if as_json:
        print_json(asdict(bundle))
        return
    from rich.console import Console

    from wbc_batch.cli.model_facts import print_model

    print_model(bundle, Console())


@app.command(cls=Command)
def verify(model: ModelArgument = "default", as_json: JsonOption = False) -> None:
    """Check that a model is complete and works.

    Its files must be undamaged, and it must load and give usable probabilities.
    """
    from wbc_batch.exchange import verify as check

    bundle = check.verify(model)
    facts = {"model": model, "name": bundle.name, "sha256": bundle.sha256, "verified": True}
    if as_json:
        print_json(facts)
    else:
        say(f"{model}: {bundle.name} is complete and runs, SHA-256 {bundle.sha256}")


@app.command("import", cls=Command)
def import_model(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="State dict: a .pt or .pth file from torch.save, or a .safetensors file.",
        ),
    ],
    arch: Annotated[
        str,
        typer.Option(metavar="ARCH", help="Torchvision's name for the network, such as resnet18."),
    ],
    classes: Annotated[
        str,
        typer.Option(
            metavar="CLASSES",
            help="The five classes in the order of the outputs, separated by commas.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new bundle.")
    ],
    size: Annotated[
        int, typer.Option(metavar="N", help="Side of the training images, in pixels.")
    ] = 224,
    mean: Annotated[
        str,
        typer.Option(
            metavar="R,G,B", help="Red, green and blue means (0..1) that training subtracted."
        ),
    ] = "0,0,0",
    std: Annotated[
        str,
        typer.Option(
            metavar="R,G,B",
            help="Red, green and blue standard deviations that training divided by.",
        ),
    ] = "1,1,1",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model.  [default: the file's name]"),
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="LICENSE", help="License of the weights, as an SPDX identifier.")
    ] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Make a model bundle from a torchvision checkpoint."""
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


@app.command(cls=Command)
def average(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DATASET",
            help="The cells that all of the models were trained on: folders with one folder per "
            "class, or prepared data sets.",
        ),
    ],
    of: Annotated[
        list[str],
        typer.Option(metavar="MODEL", help="A model to average; give the option at least twice."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new bundle.")
    ],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells to calibrate on, the same as in training.  [default: a prepared data set's "
            "validation split, or a fifth of the training cells]",
        ),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the new model.")] = "average",
    as_json: JsonOption = False,
) -> None:
    """Average the weights of models of the same preset.

    On cells of other laboratories the average is often better than each of the models.
    """
    from wbc_batch.datasets.naming import named_folders, named_validation
    from wbc_batch.training.average import average_folders

    held = named_validation(validation or [], datasets)
    bundle = average_folders(name, of, named_folders(datasets, "train"), held, output)
    _print_new(bundle, as_json)


@app.command(cls=Command)
def quantise(
    model: ModelArgument,
    calibration: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DATASET",
            help="Cells to calibrate on, such as the training cells: folders with one folder per "
            "class, or prepared data sets.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new bundle.")
    ],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DATASET",
            help="Cells to compare the accuracy on.  [default: a prepared data set's validation "
            "split]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a faster int8 network to a copy of a model.

    The network computes in 8-bit integers, with OpenVINO. It is refused if it loses more than 0.2 percentage
    points of accuracy on the validation cells, or if fewer than 97 % of them keep their label.
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


@app.command(cls=Command)
def export(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="New file, or new directory.")
    ],
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="onnx|bioimageio",
            help="One ONNX file, or a bioimage.io package (directory).",
        ),
    ] = Format.ONNX,
    as_json: JsonOption = False,
) -> None:
    """Export a model as an ONNX file or bioimage.io package.

    What is exported takes canonical crops and gives probabilities.
    """
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
