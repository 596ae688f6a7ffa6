"""Pack cells of any origin into one zarr store, which is read faster and in fewer files."""

import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, tee
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError, InputError, RunError
from wbc_batch.sources import packed
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.fetching import Fetch
from wbc_batch.sources.images import crop_size
from wbc_batch.sources.inputs import AnyInput, local_paths
from wbc_batch.sources.kinds import is_url
from wbc_batch.sources.listing import list_cells
from wbc_batch.sources.rates import attempt_read, reading_rate
from wbc_batch.sources.reading import fetches, readers, run_ahead

__all__ = ["PackSummary", "pack"]

#: Called with the number of cells done and the number of all cells.
Progress = Callable[[int, int], None]

# Chunks of about 8 MB are read nearly as fast as memory is copied; files of about 128 MB are easy to keep.
_CHUNK_BYTES = 8 * 2**20
_SHARD_BYTES = 128 * 2**20
# Rows of the arrays beside the crops that are written at once, at least.
_ROWS = 16_384
# A store may take this many times the room of its crops, for crops of different sizes are padded.
_MOST_PADDING = 16.0
_AHEAD = 64
# Cells that are read, and how often, to say how much faster the store is.
_SAMPLE = 1024
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What came of packing.

    Attributes
    ----------
    store : Path
    cells, errors : int
        In the store, and those of them that could not be read; the store keeps why.
    height, width : int
        Of the largest crops, in pixels.
    bytes : int
        Size of the store.
    seconds : float
        It took.
    sample : int
        Cells that were then read, from the inputs and from the store, by the same number of threads.
    rate_before, rate_after : float
        Cells per second from the inputs and from the store, medians; both lay in the memory of the file
        system, as far as there is room.
    """

    store: Path
    cells: int
    errors: int
    height: int
    width: int
    bytes: int
    seconds: float
    sample: int
    rate_before: float
    rate_after: float


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What all crops have in common."""

    cells: int
    height: int
    width: int


def pack(
    inputs: Sequence[AnyInput],
    output: str | Path,
    *,
    group_by: str | None = None,
    compress: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> PackSummary:
    """Write cells, their identities and their groups into a sharded zarr v3 store.

    Classifying the store gives the same rows as classifying the inputs. Crops are kept as 8-bit RGB, without
    loss; those that differ in size are padded to the largest one and cut back when they are read. A cell
    that cannot be read is kept with the reason, and becomes an error row then.

    Parameters
    ----------
    inputs, group_by
        See `wbc_batch.sources.list_cells`.
    output : str or Path
        The store, a folder that does not exist yet; its name should end in ``.zarr``.
    compress : bool
        Half the room, but slower to read.
    threads : int
        That read and decode.
    progress : callable, optional
        Called with the number of cells done and the number of all cells.

    Returns
    -------
    PackSummary

    Raises
    ------
    InputError
        If an input cannot be used, or its crops differ too much in size.
    RunError
        If the store cannot be written.
    """
    if is_url(str(output)):
        raise InputError(f"{output} is a URL; pack into a local folder and copy that")
    store = Path(output)
    _refuse_output(store, inputs)
    begun = time.monotonic()
    sizes = _measure(list_cells(inputs, group_by), threads)
    with _appearing(store) as unfinished:
        errors = _write(
            unfinished,
            list_cells(inputs, group_by),
            sizes,
            compress,
            threads,
            progress or (lambda _done, _all: None),
        )
    seconds = time.monotonic() - begun
    before = list(islice(list_cells(inputs, group_by), _SAMPLE))
    after = list(islice(list_cells([store]), _SAMPLE))
    rates = [(reading_rate(before, threads), reading_rate(after, threads)) for _ in range(_ROUNDS)]
    return PackSummary(
        store=store,
        cells=sizes.cells,
        errors=errors,
        height=sizes.height,
        width=sizes.width,
        bytes=sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        seconds=round(seconds, 1),
        sample=len(after),
        rate_before=round(statistics.median(rate for rate, _ in rates), 1),
        rate_after=round(statistics.median(rate for _, rate in rates), 1),
    )


@contextmanager
def _appearing(store: Path) -> Iterator[Path]:
    """Give another name to write under; the store appears whole, or not at all."""
    unfinished = store.with_name(f".{store.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        yield unfinished
        unfinished.rename(store)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RunError(
            f"{store}: the store cannot be written ({reason}); make room or name another place"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_output(store: Path, inputs: Sequence[AnyInput]) -> None:
    if store.exists():
        raise InputError(f"{store} exists already; name a new store, or remove it")
    if not store.absolute().parent.is_dir():
        raise InputError(f"{store}: there is no folder {store.parent}; make it first")
    for path in local_paths(inputs):
        if store.resolve().is_relative_to(path.resolve()):
            raise InputError(
                f"the store {store} lies inside the input {path}, where its files would be taken for "
                "cells; name a place outside"
            )


def _measure(cells: Iterator[Cell], threads: int) -> _Sizes:
    """Find the largest crop, from headers where images have one.

    Raises
    ------
    InputError
        If all crops would be padded too much because of it.
    """
    listed, fetched = tee(cells)
    measured = run_ahead(_size, zip(listed, fetches(fetched), strict=True), threads, _AHEAD)
    count = pixels = readable = 0
    highest, widest = (0, ""), (0, "")
    for name, (height, width) in measured:
        count += 1
        readable += height > 0
        pixels += height * width
        highest = max(highest, (height, name))
        widest = max(widest, (width, name))
    if not readable:
        raise InputError("none of these cells can be read, so there is nothing to pack")
    padding = readable * highest[0] * widest[0] / pixels
    if padding > _MOST_PADDING:
        raise InputError(
            f"these crops differ too much in size: padded to the largest ({widest[0]} x {highest[0]} pixels, "
            f"{highest[1]}) they would take {padding:.0f} times their room; pack similar sizes together"
        )
    return _Sizes(count, highest[0], widest[0])


def _size(item: tuple[Cell, Fetch]) -> tuple[str, tuple[int, int]]:
    """Name of a cell, and height and width of its crop; 0 if it cannot be read."""
    cell, fetch = item
    name = "/".join(part for part in (cell.source, cell.member) if part)
    try:
        data = fetch()
        return name, crop_size(data) if isinstance(data, bytes) else data.shape[:2]
    except Exception:  # noqa: BLE001 - reading it again will say why
        return name, (0, 0)


def _write(
    store: Path,
    cells: Iterator[Cell],
    sizes: _Sizes,
    compress: bool,
    threads: int,
    progress: Progress,
) -> int:
    """Write the store; how many cells could not be read."""
    shape = (sizes.height, sizes.width, 3)
    chunk = min(max(_CHUNK_BYTES // prod(shape), 1), sizes.cells)
    shard = chunk * min(max(_SHARD_BYTES // (prod(shape) * chunk), 1), -(-sizes.cells // chunk))
    group = _create(store, sizes, chunk, shard, compress)
    listed, to_read = tee(cells)
    images = run_ahead(attempt_read, readers(to_read), threads, _AHEAD)
    done = errors = 0
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        writing: list[Future[None]] = []
        rows: list[packed.Row] = []
        while some := list(islice(zip(listed, images, strict=True), shard)):
            if done + len(some) > sizes.cells:
                raise _changed(sizes)
            crops, described = _laid_out(some, shape)
            rows += described
            errors += sum(bool(row["error"]) for row in described)
            while writing:  # one shard is written while the next one is read
                writing.pop().result()
            writing.append(writer.submit(_write_crops, group, done, crops))
            done += len(some)
            if len(rows) >= group["group"].chunks[0] or done == sizes.cells:
                writing.append(writer.submit(_write_rows, group, done - len(rows), rows))
                rows = []
            progress(done, sizes.cells)
        while writing:
            writing.pop().result()
    if done < sizes.cells:
        raise _changed(sizes)
    return errors


def _changed(sizes: _Sizes) -> RunError:
    return RunError(
        f"the input changed while it was packed: it no longer has {sizes.cells} cells; "
        "leave it alone and begin anew"
    )


def _laid_out(
    some: Sequence[tuple[Cell, NDArray[np.uint8] | ImageError]], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], list[packed.Row]]:
    """Put crops into the top left corners of an array, and say what they are."""
    crops = np.zeros((len(some), *shape), np.uint8)
    rows = []
    for number, (cell, image) in enumerate(some):
        if not isinstance(image, ImageError) and (np.array(image.shape) > shape).any():
            image = ImageError("the file changed while it was packed")
        if isinstance(image, ImageError):
            rows.append(packed.row_of(cell, 0, 0, str(image)))
            continue
        height, width = image.shape[:2]
        crops[number, :height, :width] = image
        rows.append(packed.row_of(cell, height, width, ""))
    return crops, rows


def _create(store: Path, sizes: _Sizes, chunk: int, shard: int, compress: bool) -> Any:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    shape = (sizes.height, sizes.width, 3)
    group = zarr.create_group(store, zarr_format=3, attributes={packed.MARK: packed.VERSION})
    group.create_array(
        packed.CROPS,
        shape=(sizes.cells, *shape),
        chunks=(chunk, *shape),
        shards=(shard, *shape),
        dtype="uint8",
        # Checksums tell damage; without compression nothing else would.
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if compress else [Crc32cCodec()],
        fill_value=packed.FILL,
        dimension_names=["cell", "y", "x", "c"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no standard names strings yet
        for name, dtype in packed.COLUMNS.items():
            group.create_array(
                name,
                shape=(sizes.cells,),
                chunks=(shard * -(-_ROWS // shard),),
                dtype=str if dtype == "string" else dtype,
                dimension_names=["cell"],
            )
    return group


def _write_crops(group: Any, first: int, crops: NDArray[np.uint8]) -> None:
    group[packed.CROPS][first : first + len(crops)] = crops


def _write_rows(group: Any, first: int, rows: Sequence[packed.Row]) -> None:
    for name, dtype in packed.COLUMNS.items():
        values = np.array([row[name] for row in rows], object if dtype == "string" else dtype)
        group[name][first : first + len(rows)] = values
