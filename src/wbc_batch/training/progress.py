"""How far a training is: a bar and a line per epoch on a terminal, the lines alone elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wbc_batch.training.loop import Report, Shown
from wbc_batch.training.settings import Settings

__all__ = ["describe", "shown_training"]

_log = logging.getLogger(__name__)


def describe(row: dict[str, float], epochs: int, seconds: float) -> str:
    """Say in a line how an epoch went, such as ``epoch 3/15  loss 0.412  balanced 91.3 %  pbc 95.0 %``."""
    prefix = "accuracy_"
    figures = {"balanced": row["balanced_accuracy"]} | {
        key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)
    }
    parts = [f"{name} {100 * value:.1f} %" for name, value in figures.items()]
    head = (f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['loss']:.3f}")
    return "  ".join((*head, *parts, f"{seconds:.0f} s"))


@contextmanager
def shown_training(settings: Settings) -> Iterator[Shown]:
    """Show a training on standard error while the block runs.

    Yields
    ------
    Shown
    """
    if sys.stderr.isatty():
        with _bar(settings) as shown:
            yield shown
    else:
        yield Shown(_lines(settings))


def _lines(settings: Settings) -> Report:
    last = time.monotonic()

    def report(row: dict[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        _log.info("%s", describe(row, settings.epochs, now - last))
        last = now

    return report


@contextmanager
def _bar(settings: Settings) -> Iterator[Shown]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    total = settings.epochs * settings.batches
    # What is logged while the bar is drawn appears above it: rich takes standard error over.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading cells", total=total)

        def step(epoch: int, batch: int, loss: float) -> None:
            text = f"epoch {epoch}/{settings.epochs}  batch {batch}/{settings.batches}  loss {loss:.3f}"
            done = (epoch - 1) * settings.batches + batch
            bar.update(task, description=text, completed=done)

        yield Shown(_lines(settings), step)
