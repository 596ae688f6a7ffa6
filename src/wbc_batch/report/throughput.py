"""How fast the shards of a run were classified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wbc_batch.ledger import read_note

__all__ = ["ShardPace", "read_paces"]


@dataclass(frozen=True, slots=True)
class ShardPace:
    """One shard: its place in the run, its cells, and the seconds that they took on one worker."""

    number: int
    cells: int
    seconds: float

    @property
    def rate(self) -> float:
        """Cells per second."""
        return self.cells / self.seconds


def read_paces(shard_files: Sequence[Path]) -> list[ShardPace]:
    """Read what the notes beside the shards say; a note that cannot be read is left out.

    Parameters
    ----------
    shard_files : sequence of Path

    Returns
    -------
    list of ShardPace
    """
    notes = (read_note(path.with_suffix(".json")) for path in shard_files)
    return [
        ShardPace(note.number, note.cells, note.seconds)
        for note in notes
        if note and note.seconds > 0
    ]
