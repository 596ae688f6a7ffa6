"""The ``wbc-batch`` line for what was just done in napari."""

from collections.abc import Sequence
from pathlib import Path

from wbc_batch.errors import InputError
from wbc_batch.names import command_text

__all__ = ["classify_command", "report_command", "shortened"]

#: More inputs are refused: the whole line must stay far below what shells take (8,191 characters on Windows).
_MOST_SOURCES = 20

#: What is shown of a line; a page of file names tells nobody anything.
_MOST_SHOWN = 200


def classify_command(sources: Sequence[str], model: str, device: str) -> str:
    """Return the line that classifies the same crops in bulk.

    Raises
    ------
    InputError
        If the crops came from no file that a command could name, or from too many.
    """
    if len(sources) > _MOST_SOURCES:
        raise InputError(
            f"These cells come from {len(sources)} inputs, too many for one command; give wbc-batch the "
            "folder that holds them, or send the list of them to 'wbc-batch classify -'."
        )
    for source in sources:
        if not Path(source).is_absolute() or not Path(source).exists():
            raise InputError(
                f"'{source}' was not opened from a file, so no command can refer to it; export the cells and "
                "use the folder that is written."
            )
    report = f"{Path(sources[0]).with_suffix('')}-report"
    words = ["wbc-batch", "classify", *sources, "-o", report]
    if model != "default":
        words += ["--model", model]
    if device != "auto":
        words += ["--device", device]
    return command_text(words)


def shortened(line: str) -> str:
    """Return as much of a line as is shown."""
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}…"


def report_command(run: str, corrections: str) -> str:
    """Return the line that merges corrections into a report of a run, in a folder beside it.

    The report that the run itself holds is left as it is; one in the other folder is replaced.
    """
    words = [
        "wbc-batch",
        "report",
        run,
        "--review",
        corrections,
        "-o",
        f"{run}-reviewed",
        "--force",
    ]
    return command_text(words)
