"""What the commands share: options of one meaning, and how a command ends."""

import json
from typing import Annotated, Any, NoReturn

import typer

__all__ = ["DeviceOption", "JsonOption", "ModelOption", "end", "print_json"]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ModelOption = Annotated[str, typer.Option(help="A bundled model's name, or a bundle's directory.")]


def end(message: str, code: int) -> NoReturn:
    """Print one sentence and leave with an exit code."""
    typer.secho(f"wbc-batch: {message}", fg="red", err=True)
    raise typer.Exit(int(code)) from None


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    typer.echo(json.dumps(content, default=str))
