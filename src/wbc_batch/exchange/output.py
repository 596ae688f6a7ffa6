"""Where exported and imported models go."""

from pathlib import Path

from wbc_batch.errors import InputError

__all__ = ["refuse_existing"]


def refuse_existing(output: Path) -> None:
    """Refuse to write over something.

    Raises
    ------
    InputError
        If `output` is a file, or a directory that is not empty.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"{output} is there already; remove it, or name another place with -o")
