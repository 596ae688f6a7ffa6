"""How far a run is: a bar on a terminal, a line every few seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Pace", "Progress", "duration", "shown_progress", "silent"]

#: Called with the number of cells done and the number of all cells.
Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_LINES = 5.0

_log = logging.getLogger(__name__)


class Pace:
    """Speed and time left, reckoned from the first call on.

    Parameters
    ----------
    clock : callable
        Seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin: tuple[float, int] | None = None

    def describe(self, done: int, cells: int) -> str:
        """Say it in words, such as ``1,200 of 5,000 cells, 300 cells/s, 13 s left``."""
        now = self._clock()
        if self._begin is None:
            self._begin = (now, done)
        begin, before = self._begin
        text = f"{done:,} of {cells:,} cells"
        if done == before or now <= begin:
            return text
        speed = (done - before) / (now - begin)
        return f"{text}, {speed:,.0f} cells/s, {duration((cells - done) / speed)} left"


def silent(_done: int, _cells: int) -> None:
    """Show no progress."""


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show progress on standard error while the block runs."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    pace = Pace()
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("listing cells, starting workers", total=None)

        def show(done: int, cells: int) -> None:
            bar.update(task, description=pace.describe(done, cells), completed=done, total=cells)

        yield show


def _lines() -> Progress:
    pace = Pace()
    last = float("-inf")

    def show(done: int, cells: int) -> None:
        nonlocal last
        text = pace.describe(done, cells)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES or done == cells:
            last = time.monotonic()
            _log.info("%s", text)

    return show


def duration(seconds: float) -> str:
    """Say a time in words, such as ``13 s`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
