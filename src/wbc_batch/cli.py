"""The command ``wbc-batch``: every command is a few lines over a function that tests can call.

Nothing heavy is imported but inside the commands, so that ``--help`` answers at once. A command
returns nothing; it raises what goes wrong, and `_Group` makes that a sentence and an exit code.
"""

import json
import logging
import os
import signal
import sys
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from wbc_batch.errors import ExitCode, WbcError

if TYPE_CHECKING:
    from wbc_batch.run import RunSummary

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """The place where what a command raises becomes a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WbcError as error:
            _end(str(error), error.exit_code)
        except KeyboardInterrupt:
            _end("interrupted", ExitCode.INTERRUPTED)


app = typer.Typer(
    cls=_Group,
    help="Classify stained white blood cells in bulk. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Look at models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ModelOption = Annotated[str, typer.Option(help="A bundled model's name, or a bundle's directory.")]


def main() -> None:
    """Run the command line; the entry point of ``wbc-batch``."""
    _prepare_process()
    try:
        app(prog_name="wbc-batch")
    except Exception as error:  # noqa: BLE001 - the user gets a sentence, the log has the rest
        if os.environ.get("WBC_DEBUG"):
            traceback.print_exc()
        hint = [*getattr(error, "__notes__", ()), "set WBC_DEBUG=1 to see the traceback"][0]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        typer.secho(f"wbc-batch: unexpected error: {text[:500]}; {hint}", fg="red", err=True)
        sys.exit(ExitCode.FATAL)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wbc-batch {version('wbc-napari')}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Classify stained white blood cells in bulk. For research use only."""


@app.command()
def classify(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Folders of cell images; image files.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: ModelOption = "default",
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes.  [default: one per core]")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Use a running Dask cluster instead.")
    ] = None,
    stall_timeout: Annotated[
        float, typer.Option(help="Seconds without progress after which the run is given up.")
    ] = 600.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that the folder holds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Classify cells and report them, per cell and per folder.

    Every file of a folder becomes a row of cells.csv; groups are the folders that cells lie in.
    Repeat the same command to continue a run that was interrupted.
    """
    from wbc_batch.progress import shown_progress
    from wbc_batch.run import classify_paths

    try:
        with shown_progress() as progress:
            summary = classify_paths(
                inputs,
                output,
                model=model,
                device=device,
                workers=workers,
                scheduler=scheduler,
                force=force,
                stall_timeout=stall_timeout,
                progress=progress,
            )
    except KeyboardInterrupt:
        _end("interrupted; repeat the same command to continue", ExitCode.INTERRUPTED)
    if as_json:
        _print_json(asdict(summary) | {"run_dir": str(summary.run_dir)})
    else:
        _print_summary(summary)
    raise typer.Exit(summary.exit_code)


@app.command()
def draw(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for slides/ and labels.csv.")
    ],
    slides: Annotated[int, typer.Option(help="Number of slides.")] = 3,
    cells: Annotated[int, typer.Option(help="Cells on each slide.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed draws the same cells.")] = 0,
) -> None:
    """Draw synthetic cells, as a folder of slides to try things on."""
    from wbc_batch.synthetic import write_slides

    paths = write_slides(output, slides=slides, cells=cells, seed=seed)
    typer.echo(f"Drew {len(paths)} synthetic cells in {output / 'slides'}", err=True)


@app.command()
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


@app.command()
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
        _print_json({name: e.to_dict() for name, e in evaluations.items()})
    else:
        print_evaluations(evaluations, Console())


@model_app.command("info")
def model_info(
    model: Annotated[
        str, typer.Argument(help="A bundled model's name, or a directory.")
    ] = "default",
    as_json: JsonOption = False,
) -> None:
    """Print what a model is, what it was trained on and how well it does."""
    from wbc_batch.classifier import read_bundle

    bundle = asdict(read_bundle(model))
    bundle["path"] = str(bundle["path"])
    if as_json:
        _print_json(bundle)
    else:
        _print_facts(bundle)


def _prepare_process() -> None:
    # A batch system ends a job with SIGTERM: stop as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = logging.getLogger("wbc_batch")
    log.setLevel(logging.INFO)
    log.addHandler(_CurrentStderr())
    log.propagate = False


class _CurrentStderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is now: a progress bar replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _end(message: str, code: int) -> NoReturn:
    typer.secho(f"wbc-batch: {message}", fg="red", err=True)
    raise typer.Exit(int(code)) from None


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, default=str))


def _print_summary(summary: "RunSummary") -> None:
    from rich.console import Console

    from wbc_batch.report import print_differential, read_differential

    console = Console()
    print_differential(read_differential(summary.run_dir / "differential.csv"), console)
    errors = f", {summary.errors} of them errors (see errors.csv)" if summary.errors else ""
    typer.echo(
        f"\n{summary.cells} cells{errors}, {summary.cells_per_second:.0f} cells/s\n"
        f"Report: {summary.run_dir / 'report.html'}"
    )


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{name}:")
            _print_facts(value, f"{indent}  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            typer.echo(f"{indent}{name}: {text}")
