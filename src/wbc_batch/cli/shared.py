"""What the commands share: options of one meaning, and how a command ends."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wbc_batch.errors import visible
from wbc_batch.names import command_text

__all__ = [
    "PROFILE_HELP",
    "BackendOption",
    "ClusterOption",
    "CoverageOption",
    "DeviceOption",
    "ForceOption",
    "GroupByOption",
    "InputsArgument",
    "JsonOption",
    "MemoryLimitOption",
    "ModelOption",
    "PrecisionOption",
    "ProfileOption",
    "SchedulerFileOption",
    "SchedulerOption",
    "StallTimeoutOption",
    "WbcCountsOption",
    "WorkersOption",
    "command_line",
    "end",
    "print_json",
    "say",
]

InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Folders, ZIP and TAR archives, TIFF stacks, zarr arrays (also URLs), CSV and Parquet "
        "tables of images or boxes, image files; - for paths on standard input.",
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")]
BackendOption = Annotated[
    str, typer.Option(help="On CPUs: openvino, torch, or auto (openvino where it is installed).")
]
CoverageOption = Annotated[
    float | None,
    typer.Option(
        help="Add the classes that cannot be excluded, so that the true one is among them this often."
    ),
]
StallTimeoutOption = Annotated[
    float, typer.Option(help="Seconds without progress after which the run is given up.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace the run that the folder holds.")
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="parent, source, a regular expression with a group, or a table's column.  "
        "[default: as a table or packed store says, else parent]",
    ),
]
ModelOption = Annotated[str, typer.Option(help="A bundled model's name, or a bundle's directory.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Worker processes.  [default: one per core with a GiB, or one for the GPU]"),
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(metavar="AMOUNT", help="Memory of each worker, like 2GiB.  [default: its share]"),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Use a running Dask cluster: tcp://... or tls://..."),
]
SchedulerFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Use the running Dask cluster that wrote this file."),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Start the cluster that this YAML file describes."),
]
PROFILE_HELP = "Reference ranges: uchicago, dacie-lewis, none, or a YAML file like theirs."
ProfileOption = Annotated[str, typer.Option(help=PROFILE_HELP)]
WbcCountsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV with the columns group and wbc (10^9 per litre): adds absolute counts.",
    ),
]


def command_line() -> str:
    """Return what was typed, for a record, without the way to the program."""
    return command_text([Path(sys.argv[0]).name, *sys.argv[1:]])


def say(text: str, *, fg: str | None = None, err: bool = False) -> None:
    """Print sentences, whatever is in the names that they hold."""
    typer.secho(visible(text), fg=fg, err=err)


def end(message: str, code: int) -> NoReturn:
    """Print one sentence and leave with an exit code."""
    say(f"wbc-batch: {message}", fg="red", err=True)
    raise typer.Exit(int(code)) from None


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    typer.echo(json.dumps(content, default=str))
