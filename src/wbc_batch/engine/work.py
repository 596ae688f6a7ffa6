"""What happens on a worker: one shard in, one Parquet file out.

Plain functions; Dask is asked only whether this process is a worker that is replaced when it ends.
"""

import logging
import os
import pickle
import platform
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import get_worker

from wbc_batch.classifier import Classifier
from wbc_batch.classifier.devices import is_broken
from wbc_batch.classifier.preprocessing import CanonicalCrop, stacked
from wbc_batch.engine.plan import Job, ShardSpec, model_digest
from wbc_batch.engine.sight import refuse_blind, refuse_emptied
from wbc_batch.errors import ClusterError, ImageError, InputError, ModelError, WbcError
from wbc_batch.files import fresh
from wbc_batch.ledger import CELL_SCHEMA, ShardResult, commit
from wbc_batch.names import printable
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELL_COLUMNS,
    GIVEN_LABEL_COLUMN,
    OPTIONAL_TYPES,
    PLACE_TYPES,
    STATUS_ERROR,
    STATUS_OK,
)
from wbc_batch.sources import (
    Cell,
    attempt_read,
    calm_decoders,
    prepared_crops,
    prepared_readers,
)

__all__ = [
    "FATAL_REASON",
    "WorkerError",
    "attempt",
    "attempt_packed",
    "cells_at_once",
    "crops_of_shard",
    "load_classifier",
    "read_cells",
    "run_shard",
]

_log = logging.getLogger(__name__)

#: The ``error`` of a cell that is not read because it kills the process that reads it.
FATAL_REASON = "reading this image kills the process that reads it"

# Cells that are classified and put into rows at once, at least: each time costs a millisecond or two,
# and a backend's own batches may be small.
_AT_ONCE = 64
# So many times as many images are decoded ahead of the network.
_AHEAD = 2

# There is one model, and it uses all the cores of its process: it is loaded once, and classifies one shard
# at a time, however many threads other people's workers have.
_loading, _turn = Lock(), Lock()

_Crops = Iterator[tuple[int, CanonicalCrop | ImageError]]


class WorkerError(RuntimeError):
    """Something unexpected happened on a worker; a note has the traceback."""


def attempt(wanted: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a worker that has the wanted version, so that whatever it raises arrives.

    A client of distributed 2026.8 never hears of a task whose exception cannot be pickled, and
    waits. So exceptions travel without those that caused them, and unexpected ones as text.
    """
    try:
        _require(wanted)  # workers may join at any time
        return function(*arguments)
    except (WbcError, OSError) as error:
        failure: Exception = error
    except Exception as error:  # noqa: BLE001 - raised below
        if is_broken(error) and _has_nanny():
            # This process would fail whatever it is given next, at once. The nanny starts another one.
            _log.exception("The GPU failed, so this worker ends")
            os._exit(1)
        failure = WorkerError(f"{type(error).__name__}: {error}")
        failure.add_note(traceback.format_exc())
    failure.__cause__ = failure.__context__ = None
    raise failure


def attempt_packed(wanted: str, task: bytes) -> Any:
    """Do as `attempt` with what `distributed.protocol.pickle` packed: a function and its arguments."""
    return attempt(wanted, _call, task)


def _has_nanny() -> bool:
    """Tell whether this is the process of a worker that is replaced when it dies, and nobody else's."""
    try:
        return get_worker().nanny is not None
    except ValueError:
        return False


def _call(task: bytes) -> Any:
    function, arguments = pickle.loads(task)
    return function(*arguments)


def _require(wanted: str) -> None:
    installed = version("wbc-napari")
    if installed != wanted:
        raise ClusterError(
            f"{_this_worker()} has wbc-napari {installed}; install {wanted}, the version with "
            "which the run was started, on every worker"
        )


def _this_worker() -> str:
    """Say which worker it is; one that joined during the run was not asked before."""
    return f"the worker on {platform.node()} (process {os.getpid()})"


def run_shard(spec: ShardSpec) -> ShardResult:
    """Classify the cells of a shard and commit their rows.

    A process classifies one shard at a time. The first cells of the next one are read meanwhile.

    Parameters
    ----------
    spec : ShardSpec

    Returns
    -------
    ShardResult

    Raises
    ------
    ModelError
        If the model cannot be loaded here, or is another one than the run's.
    ClusterError
        If it cannot be used here as the run does, such as in its precision.
    OSError
        If the rows cannot be written, or nothing of the input is there.
    """
    refuse_blind(spec)
    with _loading:
        classifier = load_classifier(spec.job)
    # Closed, so that a failed one does not keep the next one from reading.
    with closing(crops_of_shard(classifier, spec)) as crops:
        begun = _begun(crops)
        with _turn:
            started = time.perf_counter()
            rows = _classify(classifier, spec, begun)
    if rows["error"].null_count < rows.num_rows - len(spec.fatal):
        refuse_blind(spec)  # it may have gone meanwhile,
        refuse_emptied(spec)  # or before, and left a place
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    labels = {str(entry["values"]): entry["counts"] for entry in _label_counts(rows)}
    result = ShardResult(
        shard_id=spec.shard_id,
        number=spec.number,
        file=f"{spec.stem}.parquet",
        size=len(content),
        cells=rows.num_rows,
        errors=rows.num_rows - sum(labels.values()),
        labels=labels,
        device=classifier.device,
        precision=classifier.precision,
        backend=classifier.backend,
        seconds=round(time.perf_counter() - started, 3),
    )
    commit(Path(spec.job.shards), result, content)
    return result


def read_cells(spec: ShardSpec, positions: Sequence[int], trail: Path) -> None:
    """Read and prepare some cells of a shard one after the other, and keep nothing.

    Parameters
    ----------
    spec : ShardSpec
    positions : sequence of int
    trail : Path
        Always holds the position that is being read. It tells where the process died, if it does.
    """
    classifier = load_classifier(spec.job)
    cells = (spec.cells[position] for position in positions)
    reads = prepared_readers(cells, classifier.bundle.preprocessing, Path(spec.job.base))
    for position in positions:
        with fresh(trail) as file:
            file.write(str(position).encode())
        attempt_read(next(reads))


@lru_cache(maxsize=1)
def load_classifier(job: Job) -> Classifier:
    """Load the model of a run, once in a process.

    Raises
    ------
    ModelError
        If it cannot be loaded here, or is another one than the run's.
    ClusterError
        If it cannot be used here as the run does, such as in its precision.
    """
    import torch

    torch.set_num_threads(job.threads)
    calm_decoders()
    try:
        classifier = Classifier.load(job.model, job.device, job.precision, job.backend)
    except InputError as error:  # such as that it lacks the run's precision
        raise ClusterError(f"{_this_worker()} cannot do its part: {error}") from error
    if model_digest(classifier.bundle) != job.model_digest:
        raise ModelError(
            f"{classifier.bundle.path} is a different model on the workers than where the run was "
            "started; install the same version of wbc-napari everywhere, or give a bundle that "
            "all can read"
        )
    return classifier


def _begun(crops: _Crops) -> _Crops:
    """Let the reading begin: it goes as far ahead as it may while the first crop waits to be taken."""
    return chain(list(islice(crops, 1)), crops)


def _classify(classifier: Classifier, spec: ShardSpec, crops: _Crops) -> pa.Table:
    """Rows of all cells of a shard, in their order."""
    errors: dict[int, str] = dict.fromkeys(spec.fatal, FATAL_REASON)
    frames = [_empty_predictions(classifier)]
    positions: list[int] = []
    some: list[CanonicalCrop] = []

    def predict() -> None:
        frame = classifier.predict_prepared(*stacked(some)).to_frame()
        frame.index = pd.Index(positions)
        frames.append(frame)
        positions.clear()
        some.clear()

    for position, crop in crops:
        if isinstance(crop, ImageError):
            errors[position] = str(crop)
            continue
        positions.append(position)
        some.append(crop)
        if len(some) >= cells_at_once(classifier):
            predict()
    if some:
        predict()
    return _rows(spec.job, spec.cells, pd.concat(frames), errors)


def cells_at_once(classifier: Classifier) -> int:
    """Choose how many cells to classify at once: whole batches, whose size may fall on the way."""
    return classifier.batch_size * -(-_AT_ONCE // classifier.batch_size)


def crops_of_shard(
    classifier: Classifier, spec: ShardSpec
) -> Generator[tuple[int, CanonicalCrop | ImageError], None, None]:
    """Read and prepare the cells of a shard, a bounded number ahead of the consumer, in order.

    A process that dies of an image takes this one along, as if it had been read here: the run finds out
    which image it was.

    Yields
    ------
    tuple of int and (CanonicalCrop or ImageError)
        The position of a cell in the shard, and its crop, or why there is none; fatal ones are left out.
    """
    fatal = frozenset(spec.fatal)
    positions = [position for position in range(len(spec.cells)) if position not in fatal]
    cells = [spec.cells[position] for position in positions]
    numbers, base = classifier.bundle.preprocessing, Path(spec.job.base)
    ahead = _AHEAD * cells_at_once(classifier)
    try:
        crops = prepared_crops(cells, numbers, base, spec.job.threads, ahead)
        yield from zip(positions, crops, strict=True)
    except ChildProcessError:
        os._exit(1)


def _empty_predictions(classifier: Classifier) -> pd.DataFrame:
    size = classifier.input_size
    return classifier.predict_prepared(np.zeros((0, size, size, 3), np.uint8)).to_frame()


def _rows(
    job: Job, cells: Sequence[Cell], predictions: pd.DataFrame, errors: dict[int, str]
) -> pa.Table:
    columns = {
        "cell_id": [cell.cell_id for cell in cells],
        "source": [printable(cell.source) for cell in cells],
        "member": [printable(cell.member) for cell in cells],
        "index": [cell.index for cell in cells],
        "group": [printable(cell.group) for cell in cells],
        "status": [STATUS_ERROR if p in errors else STATUS_OK for p in range(len(cells))],
        # A reason may name a file.
        "error": [printable(errors[p]) if p in errors else None for p in range(len(cells))],
    }
    # Cells without a prediction get empty ones.
    for name, values in predictions.reindex(range(len(cells))).items():
        columns[str(name)] = pa.array(values, CELL_SCHEMA.field(str(name)).type, from_pandas=True)
    rows = pa.table({name: columns[name] for name in CELL_COLUMNS}, schema=CELL_SCHEMA)
    for name in job.columns:
        kind = pa.type_for_alias((OPTIONAL_TYPES | PLACE_TYPES)[name])
        known = [_optional(name, cell) for cell in cells]
        rows = rows.append_column(pa.field(name, kind), pa.array(known, kind))
    return rows


def _optional(name: str, cell: Cell) -> str | int | None:
    """Look up what only some kinds of input say of a cell."""
    if name in BOX_COLUMNS:
        return None if cell.box is None else int(getattr(cell.box, name))
    if name == GIVEN_LABEL_COLUMN:
        return printable(cell.given_label) or None
    if cell.place is None or cell.store == cell.source:
        return None
    return printable(cell.store) if name == "store" else cell.place.position


def _label_counts(rows: pa.Table) -> list[dict]:
    return rows["label"].drop_null().value_counts().to_pylist()
