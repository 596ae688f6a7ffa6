"""``wbc-batch model``: look at models."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from wbc_batch.cli.shared import JsonOption, print_json

__all__ = ["app"]

app = typer.Typer(help="Look at models.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def info(
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
        print_json(bundle)
    else:
        _print_facts(bundle)


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{name}:")
            _print_facts(value, f"{indent}  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            typer.echo(f"{indent}{name}: {text}")
