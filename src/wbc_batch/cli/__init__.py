"""The command ``wbc-batch``: every command is a few lines over a function that tests can call.

Nothing heavy is imported but inside the commands, so that ``--help`` answers at once. A command
returns nothing; it raises what goes wrong, and `_Group` makes that a sentence and an exit code.
"""

import logging
import os
import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wbc_batch.cli import datasets, models
from wbc_batch.cli.classify import classify, draw
from wbc_batch.cli.compare import compare
from wbc_batch.cli.evaluation import evaluate
from wbc_batch.cli.pack import pack
from wbc_batch.cli.plan import plan
from wbc_batch.cli.report import report
from wbc_batch.cli.shared import Command, end, say
from wbc_batch.cli.streams import outlast_readers
from wbc_batch.cli.training import train
from wbc_batch.errors import ExitCode, WbcError, in_a_line, visible

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """The place where what a command raises becomes a sentence and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            Path.cwd()
        except OSError:  # libraries die of it as they are imported, typer's own among them
            end(
                "the current folder no longer exists; change to one that does, and repeat the "
                "command",
                ExitCode.FATAL,
            )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WbcError as error:
            end(str(error), error.exit_code)
        except KeyboardInterrupt:
            end("interrupted", ExitCode.INTERRUPTED)
        except EOFError as error:
            # Click takes it for the end of what somebody types, and says nothing.
            raise RuntimeError("a file ends before it should") from error


app = typer.Typer(
    cls=_Group,
    help="Classify stained white blood cells in bulk. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (plan, classify, report, compare, pack, draw, train, evaluate):
    app.command(cls=Command)(command)
app.add_typer(models.app, name="model")
app.add_typer(datasets.app, name="dataset")


def main() -> None:
    """Run the command line; the entry point of ``wbc-batch``."""
    _prepare_process()
    try:
        app(prog_name="wbc-batch")
    except Exception as error:  # noqa: BLE001 - the user gets a sentence, the log has the rest
        if os.environ.get("WBC_DEBUG"):
            traceback.print_exc()
        hint = [*getattr(error, "__notes__", ()), "set WBC_DEBUG=1 to see the traceback"][0]
        text = in_a_line(f"{type(error).__name__}: {error}", 500)
        say(f"wbc-batch: unexpected error: {text}; {hint}", fg="red", err=True)
        sys.exit(ExitCode.FATAL)
    finally:
        # Dask clears up as Python ends: an impatient Ctrl-C would only make a traceback of that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


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


def _prepare_process() -> None:
    outlast_readers()
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

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
