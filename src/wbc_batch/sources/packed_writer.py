"""Write a packed store: its arrays, laid out as `wbc_batch.sources.packed` says, a shard at a time."""

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.preprocessing import CanonicalCrop, Preprocessing
from wbc_batch.errors import ImageError, RunError
from wbc_batch.progress import Progress
from wbc_batch.sources import packed
from wbc_batch.sources.cells import Cell

__all__ = ["Layout", "Packed", "Pixels", "write"]

# Chunks of about 8 MB are read nearly as fast as memory is copied; files of about 128 MB are easy to keep.
_CHUNK_BYTES = 8 * 2**20
_SHARD_BYTES = 128 * 2**20
# Rows of the arrays beside the crops that are written at once, at least.
_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Layout:
    """What all crops of a store have in common.

    Attributes
    ----------
    cells : int
    height, width : int
        Of the largest crop, pixels.
    compress : bool
    preprocessing : Preprocessing or None
        Of the canonical crops beside the pictures.
    """

    cells: int
    height: int
    width: int
    compress: bool
    preprocessing: Preprocessing | None

    @property
    def crop(self) -> tuple[int, int, int]:
        """Shape of a crop in the store."""
        return self.height, self.width, 3

    @property
    def arrays(self) -> dict[str, tuple[int, int, int]]:
        """Shape of what each array holds of a cell."""
        if self.preprocessing is None:
            return {packed.CROPS: self.crop}
        size = self.preprocessing.size
        return {packed.CROPS: self.crop, packed.PREPARED: (size, size, 3)}

    @property
    def chunk(self) -> int:
        """Crops in a chunk, of each array."""
        largest = max(map(prod, self.arrays.values()))
        return min(max(_CHUNK_BYTES // largest, 1), self.cells)

    @property
    def shard(self) -> int:
        """Crops in a file, of each array."""
        largest = max(map(prod, self.arrays.values()))
        most = max(_SHARD_BYTES // (largest * self.chunk), 1)
        return self.chunk * min(most, -(-self.cells // self.chunk))


#: What was read of a cell: its picture, and its canonical crop if the layout wants one; or why not.
Pixels = tuple[NDArray[np.uint8], CanonicalCrop | None] | ImageError

#: A cell, its group by the rule ``parent``, and what was read of it.
Packed = tuple[Cell, str, Pixels]


def write(
    store: Path,
    layout: Layout,
    cells: Iterable[Packed],
    progress: Progress,
) -> int:
    """Write a store.

    Parameters
    ----------
    store : Path
        An empty folder.
    layout : Layout
    cells : iterable of Packed
        Taken as they are written: a shard goes to the disk while the next one is read.
    progress : callable
        Called with the number of cells done and the number of all cells.

    Returns
    -------
    int
        How many cells could not be read.

    Raises
    ------
    RunError
        If there are more or fewer cells than the layout says.
    OSError
        If the store cannot be written.
    """
    group = _create(store, layout)
    todo = iter(cells)
    done = errors = 0
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        writing: list[Future[None]] = []
        rows: list[packed.Row] = []
        while some := list(islice(todo, layout.shard)):
            if done + len(some) > layout.cells:
                raise _changed(layout)
            arrays, described = _laid_out(some, layout)
            rows += described
            errors += sum(bool(row["error"]) for row in described)
            while writing:
                writing.pop().result()
            writing.append(writer.submit(_write_crops, group, done, arrays))
            done += len(some)
            if len(rows) >= group["group"].chunks[0] or done == layout.cells:
                writing.append(writer.submit(_write_rows, group, done - len(rows), rows))
                rows = []
            progress(done, layout.cells)
        while writing:
            writing.pop().result()
    if done < layout.cells:
        raise _changed(layout)
    return errors


def _changed(layout: Layout) -> RunError:
    return RunError(
        f"the input changed while it was being packed: it no longer has {layout.cells} cells; do "
        "not change it, and pack it again"
    )


def _laid_out(
    some: Sequence[Packed], layout: Layout
) -> tuple[dict[str, NDArray], list[packed.Row]]:
    """Put crops into the top left corners of arrays, and say what they are."""
    arrays: dict[str, NDArray] = {
        name: np.zeros((len(some), *shape), np.uint8) for name, shape in layout.arrays.items()
    }
    if layout.preprocessing is not None:
        arrays[packed.SIZES] = np.full(len(some), np.nan, np.float32)
    rows = []
    for number, (cell, parent, pixels) in enumerate(some):
        if not isinstance(pixels, ImageError) and (np.array(pixels[0].shape) > layout.crop).any():
            pixels = ImageError("the file changed while it was being packed")
        if isinstance(pixels, ImageError):
            rows.append(packed.row_of(cell, parent, 0, 0, str(pixels)))
            continue
        image, canonical = pixels
        height, width = image.shape[:2]
        arrays[packed.CROPS][number, :height, :width] = image
        if canonical is not None:
            arrays[packed.PREPARED][number] = canonical.pixels
            arrays[packed.SIZES][number] = canonical.nucleus_size
        rows.append(packed.row_of(cell, parent, height, width, ""))
    return arrays, rows


def _create(store: Path, layout: Layout) -> Any:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    attributes: dict[str, Any] = {packed.MARK: packed.VERSION}
    if layout.preprocessing is not None:
        attributes[packed.PREPARED] = packed.preparation(layout.preprocessing)
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    for name, shape in layout.arrays.items():
        group.create_array(
            name,
            shape=(layout.cells, *shape),
            chunks=(layout.chunk, *shape),
            shards=(layout.shard, *shape),
            dtype="uint8",
            # Checksums tell damage; without compression nothing else would.
            compressors=[ZstdCodec(level=1), Crc32cCodec()] if layout.compress else [Crc32cCodec()],
            fill_value=packed.FILL,
            dimension_names=["cell", "y", "x", "c"],
        )
    if layout.preprocessing is not None:
        group.create_array(
            packed.SIZES,
            shape=(layout.cells,),
            chunks=(layout.shard,),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=["cell"],
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no standard names strings yet
        for name, dtype in packed.COLUMNS.items():
            group.create_array(
                name,
                shape=(layout.cells,),
                chunks=(layout.shard * -(-_ROWS // layout.shard),),
                dtype=str if dtype == "string" else dtype,
                dimension_names=["cell"],
            )
    return group


def _write_crops(group: Any, first: int, arrays: dict[str, NDArray]) -> None:
    for name, values in arrays.items():
        group[name][first : first + len(values)] = values


def _write_rows(group: Any, first: int, rows: Sequence[packed.Row]) -> None:
    for name, dtype in packed.COLUMNS.items():
        values = np.array([row[name] for row in rows], object if dtype == "string" else dtype)
        group[name][first : first + len(rows)] = values
