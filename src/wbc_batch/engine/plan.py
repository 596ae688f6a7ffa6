"""From a stream of cells to a stream of shards. Nothing here grows with the number of cells."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice

from wbc_batch.classifier import Bundle
from wbc_batch.errors import RunError
from wbc_batch.sources import Cell

__all__ = [
    "Job",
    "Listing",
    "ShardSpec",
    "model_digest",
    "plan_shards",
    "shard_size",
    "survey",
    "verified",
]

#: At most this many cells per shard: some ten seconds of one core.
MAX_SHARD = 4096
#: Below this many cells per shard, starting it costs more than sharing the work gains.
MIN_SHARD = 32
#: Shards per worker that a small input is cut into, so that no worker is left waiting for long.
SHARDS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What all shards of a run have in common.

    Attributes
    ----------
    model : str
        A bundled model's name or a bundle's directory, readable on every worker.
    model_digest : str
        See `model_digest`; a worker whose model has another one refuses to work.
    device, precision : str
        As `wbc_batch.Classifier.load` takes them.
    threads : int
        Cores that one worker may use.
    base : str
        The folder that relative sources start from.
    shards : str
        The folder that results are written to.
    """

    model: str
    model_digest: str
    device: str
    precision: str
    threads: int
    base: str
    shards: str


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """One piece of work.

    Attributes
    ----------
    number : int
        Place in the order of the run, from 0.
    shard_id : str
        Hash of the cells' identities and the model.
    cells : tuple of Cell
    job : Job
    fatal : tuple of int
        Positions of cells that are known to kill the process that reads them; they are not read.
    """

    number: int
    shard_id: str
    cells: tuple[Cell, ...]
    job: Job
    fatal: tuple[int, ...] = ()

    @property
    def stem(self) -> str:
        """Name of the shard's files, without suffix."""
        return f"{self.number:06d}-{self.shard_id}"


@dataclass(frozen=True, slots=True)
class Listing:
    """How many cells an input holds, and a digest of their identities in order."""

    cells: int
    digest: str


def survey(cells: Iterable[Cell]) -> Listing:
    """Count cells and digest their identities."""
    tally = _Tally()
    for cell in cells:
        tally.add(cell)
    return tally.listing()


def verified(cells: Iterable[Cell], expected: Listing) -> Iterator[Cell]:
    """Pass cells on, and make sure in the end that they were the expected ones.

    Raises
    ------
    RunError
        In the end, if they were not.
    """
    tally = _Tally()
    for cell in cells:
        tally.add(cell)
        yield cell
    if tally.listing() != expected:
        raise RunError(
            f"the input changed during the run: {expected.cells} cells were listed at first, "
            f"{tally.listing().cells} later; leave it alone and begin anew with --force"
        )


class _Tally:
    def __init__(self) -> None:
        self._cells = 0
        self._digest = blake2b(digest_size=16)

    def add(self, cell: Cell) -> None:
        self._cells += 1
        self._digest.update(cell.cell_id.encode())

    def listing(self) -> Listing:
        return Listing(self._cells, self._digest.hexdigest())


def shard_size(cells: int, workers: int) -> int:
    """Choose how many cells a shard holds.

    Parameters
    ----------
    cells : int
        In the whole run.
    workers : int

    Returns
    -------
    int
        `MAX_SHARD`, or fewer where the workers would not all have work otherwise.
    """
    fair = -(-cells // (workers * SHARDS_PER_WORKER))
    return min(max(fair, MIN_SHARD), MAX_SHARD)


def model_digest(bundle: Bundle) -> str:
    """Hash everything in a model that a prediction depends on.

    That is the SHA-256 of its weights, its network, preprocessing, temperature and rejection thresholds.
    """
    decisive = {
        "sha256": bundle.sha256,
        "network": [bundle.architecture, bundle.arguments, bundle.classes],
        "preprocessing": asdict(bundle.preprocessing),
        "temperature": bundle.temperature,
        "novelty_scale": bundle.novelty_scale,
        "rejection": asdict(bundle.rejection),
    }
    text = json.dumps(decisive, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def plan_shards(cells: Iterable[Cell], job: Job, size: int) -> Iterator[ShardSpec]:
    """Cut a stream of cells into shards, one at a time.

    Parameters
    ----------
    cells : iterable of Cell
    job : Job
    size : int
        Cells per shard; the last one may hold fewer.

    Yields
    ------
    ShardSpec
    """
    stream = iter(cells)
    number = 0
    while some := tuple(islice(stream, size)):
        digest = blake2b(job.model_digest.encode(), digest_size=8)
        for cell in some:
            digest.update(cell.cell_id.encode())
        yield ShardSpec(number, digest.hexdigest(), some, job)
        number += 1
