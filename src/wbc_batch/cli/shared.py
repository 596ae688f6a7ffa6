"""What the commands share: options of one meaning, and how a command ends."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from wbc_batch.errors import visible
from wbc_batch.names import command_text

__all__ = [
    "PROFILE_HELP",
    "BackendOption",
    "ClusterOption",
    "Command",
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
        metavar="INPUT",
        help="Folders, ZIP and TAR archives, TIFF stacks, zarr arrays (also URLs), CSV and Parquet "
        "tables of images or boxes, image files; - for paths on standard input.",
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str, typer.Option(metavar="PRECISION", help="auto, fp32, bf16, fp16 or int8.")
]
BackendOption = Annotated[
    str,
    typer.Option(
        metavar="BACKEND",
        help="On CPUs: openvino, torch, or auto (openvino where it is installed).",
    ),
]
CoverageOption = Annotated[
    float | None,
    typer.Option(
        metavar="PROBABILITY",
        help="Add the classes that cannot be excluded; the true one is among them with this "
        "probability, such as 0.95.",
    ),
]
StallTimeoutOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="Give up the run after this many seconds without progress."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the run in the output folder.")]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="How to group cells: parent (folder), source (input), a regular expression with a "
        "group, or a column of a table.  [default: as a table or packed store says, else "
        "parent]",
    ),
]
ModelOption = Annotated[
    str, typer.Option(metavar="MODEL", help="A bundled model's name, or a bundle's directory.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of worker processes.  [default: one per core that has 1 GiB of memory, or one for "
        "the GPU]",
    ),
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT", help="Memory for each worker, such as 2GiB.  [default: an equal share]"
    ),
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
PROFILE_HELP = "Reference ranges: uchicago, dacie-lewis, none, or a YAML file in the same format."
ProfileOption = Annotated[str, typer.Option(metavar="PROFILE", help=PROFILE_HELP)]
WbcCountsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV file with the columns group and wbc (10^9 per liter): adds absolute counts.",
    ),
]


class Command(TyperCommand):
    """A command whose help gives arguments by name alone: Typer adds braces and Python types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Give the words of the usage line: brackets stand around what may be left out."""
        pieces = [self.options_metavar or ""]
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                name = _shown(param)
                pieces.append(name if param.required else f"[{name}]")
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the lists of arguments and of options."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                if param.param_type_name == "argument":
                    rows["Arguments"].append((_shown(param), record[1]))
                else:
                    rows["Options"].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _shown(argument: Any) -> str:
    return f"{argument.metavar}{'' if argument.nargs == 1 else '...'}"


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
