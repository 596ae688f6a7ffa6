"""From a stream of cells to a stream of shards. Nothing here grows with the number of cells."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b

from wbc_batch.classifier import Bundle
from wbc_batch.errors import RunError
from wbc_batch.names import name_bytes
from wbc_batch.schema import BOX_COLUMNS, GIVEN_LABEL_COLUMN, OPTIONAL_TYPES, PLACE_TYPES
from wbc_batch.sources import Cell

__all__ = [
    "MAX_SHARD",
    "MIN_SHARD",
    "SHARDS_AT_ONCE",
    "Job",
    "Listing",
    "ShardSpec",
    "model_digest",
    "plan_shards",
    "shard_size",
    "survey",
    "verified",
]

#: At most this many cells per shard: some twenty-five seconds of one core.
MAX_SHARD = 4096
#: Below this many cells per shard, starting it costs more than sharing the work gains.
MIN_SHARD = 32
#: Shards that a worker is given at once: one is read while the other is classified.
SHARDS_AT_ONCE = 2
#: Shards per worker that a small input is cut into, so that no worker is left waiting for long.
SHARDS_PER_WORKER = 4
# How many times larger a shard may grow so that a unit of its container is not cut.
_STRETCH = 4


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
    columns : tuple of str
        Of `wbc_batch.schema.OPTIONAL_TYPES` and `wbc_batch.schema.PLACE_TYPES`: those of every shard.
    backend : str
        As `wbc_batch.Classifier.load` takes it; but for ``auto``, all workers have the same.
    """

    model: str
    model_digest: str
    device: str
    precision: str
    threads: int
    base: str
    shards: str
    columns: tuple[str, ...] = ()
    backend: str = "auto"


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """One piece of work.

    Attributes
    ----------
    number : int
        Place in the order of the run, from 0.
    shard_id : str
        Hash of the cells, the model, and the backend and precision that compute it.
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
    """How many cells an input holds, a digest of them in order, and columns that not all inputs have."""

    cells: int
    digest: str
    columns: tuple[str, ...] = ()


def survey(cells: Iterable[Cell]) -> Listing:
    """Count cells and digest their identities, groups and boxes."""
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
            f"{tally.listing().cells} later; do not change it, and start again with --force"
        )


class _Tally:
    def __init__(self) -> None:
        self._cells = 0
        self._digest = blake2b(digest_size=16)
        self._columns: dict[str, None] = {}

    def add(self, cell: Cell) -> None:
        self._cells += 1
        self._digest.update(_fingerprint(cell))
        if cell.box:
            self._columns |= dict.fromkeys(BOX_COLUMNS)
        if cell.given_label:
            self._columns |= dict.fromkeys((GIVEN_LABEL_COLUMN,))
        if cell.store != cell.source:  # it was packed
            self._columns |= dict.fromkeys(PLACE_TYPES)

    def listing(self) -> Listing:
        known = (name for name in (*OPTIONAL_TYPES, *PLACE_TYPES) if name in self._columns)
        return Listing(self._cells, self._digest.hexdigest(), tuple(known))


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

    That is the SHA-256 of its weights, quantised or not, its network, preprocessing, evidence of sizes,
    temperature and rejection thresholds.
    """
    decisive = {
        "sha256": bundle.sha256,
        "quantised": bundle.quantised.get("files"),
        "network": [bundle.architecture, bundle.arguments, bundle.classes],
        "preprocessing": asdict(bundle.preprocessing),
        "temperature": bundle.temperature,
        "size_evidence": bundle.size_evidence and asdict(bundle.size_evidence),
        "novelty_scale": bundle.novelty_scale,
        "rejection": asdict(bundle.rejection),
    }
    text = json.dumps(decisive, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def plan_shards(cells: Iterable[Cell], job: Job, size: int) -> Iterator[ShardSpec]:
    """Cut a stream of cells into shards, one at a time.

    Cells that are read together, such as those of a zarr chunk, stay together within reason.

    Parameters
    ----------
    cells : iterable of Cell
    job : Job
    size : int
        Cells per shard. The last one may hold fewer, and one that ends with a unit of its container up
        to `_STRETCH` times as many.

    Yields
    ------
    ShardSpec
    """
    for number, some in enumerate(_cut(cells, size)):
        computed = "\0".join((job.model_digest, job.backend, job.precision))
        digest = blake2b(computed.encode(), digest_size=8)
        for cell in some:
            digest.update(_fingerprint(cell))
        yield ShardSpec(number, digest.hexdigest(), some, job)


def _cut(cells: Iterable[Cell], size: int) -> Iterator[tuple[Cell, ...]]:
    some: list[Cell] = []
    for cell in cells:
        if len(some) >= size and not _one_unit(some[-1], cell):
            yield tuple(some)
            some = []
        some.append(cell)
        most = size if cell.place is None else _STRETCH * size
        if len(some) >= most:
            yield tuple(some)
            some = []
    if some:
        yield tuple(some)


def _one_unit(first: Cell, second: Cell) -> bool:
    if first.place is None or second.place is None:
        return False
    return (first.place.store, first.place.unit) == (second.place.store, second.place.unit)


def _fingerprint(cell: Cell) -> bytes:
    """All of a cell that ends in its row or decides about it."""
    box = "" if cell.box is None else repr(cell.box)
    return name_bytes("\0".join((cell.cell_id, cell.group, box, cell.given_label)))
