"""Pack cells of any origin into one zarr store, which is read faster and in fewer files."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee, zip_longest
from pathlib import Path

from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop
from wbc_batch.errors import ImageError, InputError, RunError, UnreachableError
from wbc_batch.files import held, refuse_existing, removed, unfinished, writing
from wbc_batch.paths import is_folder
from wbc_batch.progress import Progress, silent
from wbc_batch.sources import packed
from wbc_batch.sources.ahead import map_apart, run_ahead
from wbc_batch.sources.cells import Cell, path_of
from wbc_batch.sources.fetching import Fetch
from wbc_batch.sources.images import crop_size
from wbc_batch.sources.inputs import AnyInput, input_around
from wbc_batch.sources.kinds import is_url
from wbc_batch.sources.listing import list_cells
from wbc_batch.sources.packed_writer import Layout, Pixels, write
from wbc_batch.sources.rates import reading_rate
from wbc_batch.sources.reading import (
    Read,
    attempt_read,
    calm_decoders,
    fetches,
    prepared_crops,
    readers,
)
from wbc_batch.sources.size_limits import refuse_large

__all__ = ["PackSummary", "pack"]

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
        Cells that were then read, from the inputs and from the store, on the same number of cores.
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


def pack(
    inputs: Sequence[AnyInput],
    output: str | Path,
    *,
    group_by: str | None = None,
    compress: bool = False,
    preprocessing: Preprocessing | None = None,
    cores: int = 1,
    progress: Progress = silent,
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
    preprocessing : Preprocessing, optional
        Keep the canonical crops, too, so that models with the same preprocessing need not make them.
    cores : int
        That read, decode and prepare.
    progress : callable
        Called with the number of cells done and the number of all cells.

    Returns
    -------
    PackSummary

    Raises
    ------
    InputError
        If an input cannot be used, or its crops differ too much in size.
    RunError
        If the store is there already or cannot be written, or another process writes it.
    """
    if is_url(str(output)):
        raise InputError(f"{output} is a URL; pack into a local folder and copy that")
    store = Path(output)
    _refuse_output(store, inputs)
    calm_decoders()
    begun = time.monotonic()
    with _alone(store):
        layout = _measured(list_cells(inputs, group_by), cores, compress, preprocessing)
        listed, to_check, to_read = tee(list_cells(inputs, group_by), 3)
        with _appearing(store) as place:
            errors = write(
                place,
                layout,
                zip(
                    listed,
                    _parents(inputs, to_check),
                    _pixels(to_read, preprocessing, cores),
                    strict=True,
                ),
                progress,
            )
    seconds = time.monotonic() - begun
    before = list(islice(list_cells(inputs, group_by), _SAMPLE))
    after = list(islice(list_cells([store]), _SAMPLE))
    rate_before, rate_after = _rates(before, after, preprocessing, cores)
    return PackSummary(
        store=store,
        cells=layout.cells,
        errors=errors,
        height=layout.height,
        width=layout.width,
        bytes=sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        seconds=round(seconds, 1),
        sample=len(after),
        rate_before=rate_before,
        rate_after=rate_after,
    )


def _parents(inputs: Sequence[AnyInput], cells: Iterator[Cell]) -> Iterator[str]:
    """Find the group of each cell by the rule ``parent``, which its source and member alone do not tell.

    Raises
    ------
    RunError
        If these are no longer the cells that the inputs have.
    """
    for cell, same in zip_longest(cells, list_cells(inputs, packed.PARENT)):
        if not (cell and same and _identity(cell) == _identity(same)):
            raise RunError(
                "the input changed while it was being packed; do not change it, and pack it again"
            )
        yield same.group


def _identity(cell: Cell) -> tuple[str, str, int | None]:
    return cell.source, cell.member, cell.index


def _pixels(
    cells: Iterator[Cell], preprocessing: Preprocessing | None, cores: int
) -> Iterator[Pixels]:
    """Read cells; where they are to be prepared, too, in processes: threads would wait for each other."""
    if preprocessing and cores > 1:
        # The processes may be from before this one went to another folder.
        read = partial(_read_some, preprocessing=preprocessing, base=Path.cwd())
        return map_apart(read, cells, cores)
    reads = (partial(_read, get, preprocessing) for get in readers(cells))
    return run_ahead(attempt_read, reads, cores, _AHEAD)


def _read_some(cells: Sequence[Cell], preprocessing: Preprocessing, base: Path) -> list[Pixels]:
    calm_decoders()
    return [attempt_read(partial(_read, get, preprocessing)) for get in readers(cells, base)]


def _read(read: Read, preprocessing: Preprocessing | None) -> Pixels:
    image = read()
    return image, canonical_crop(image, preprocessing) if preprocessing else None


def _rates(
    before: Sequence[Cell],
    after: Sequence[Cell],
    preprocessing: Preprocessing | None,
    cores: int,
) -> tuple[float, float]:
    """Cells per second from the inputs and from the store, each the median of some rounds by turns."""
    rounds = [
        [reading_rate(_next_run(some, preprocessing, cores)) for some in (before, after)]
        for _ in range(_ROUNDS)
    ]
    of_inputs, of_store = (
        round(statistics.median(rates), 1) for rates in zip(*rounds, strict=True)
    )
    return of_inputs, of_store


def _next_run(
    cells: Sequence[Cell], preprocessing: Preprocessing | None, cores: int
) -> Iterator[object]:
    """Read cells as the next run will, as far as it is known."""
    if preprocessing:
        return prepared_crops(cells, preprocessing, Path.cwd(), cores, _AHEAD)
    return run_ahead(attempt_read, readers(cells), cores, _AHEAD)


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Keep other processes from writing the same store."""
    file = store.with_name(f".{store.name}.lock")
    with held(file, store, "being packed by another process"):
        try:
            refuse_existing(store, even_empty=True)  # that process may just have ended
            yield
        finally:
            with suppress(OSError):  # Windows keeps files that are open
                file.unlink()


@contextmanager
def _appearing(store: Path) -> Iterator[Path]:
    """Give another name to write under; the store appears whole, or not at all."""
    begun = unfinished(store)
    with writing(store):
        try:
            removed(begun).mkdir()
            yield begun
            begun.rename(store)
        except ChildProcessError as error:
            raise RunError(
                f"{store}: {error}, because of one image or because memory ran out; find the image "
                "that wbc-batch classify reports as killing the process and remove it, or free "
                "some memory"
            ) from error
        finally:
            removed(begun)


def _refuse_output(store: Path, inputs: Sequence[AnyInput]) -> None:
    refuse_existing(store, even_empty=True)
    if not is_folder(store.absolute().parent):
        raise RunError(f"{store}: there is no folder {store.parent}; create it first")
    if (path := input_around(store, inputs)) is not None:
        raise InputError(
            f"the store {store} lies inside the input {path}, where its files would be read as "
            "cells; choose a path outside it"
        )


def _measured(
    cells: Iterator[Cell], cores: int, compress: bool, preprocessing: Preprocessing | None
) -> Layout:
    """Lay out a store by the largest crop, found from headers where images have one.

    Raises
    ------
    InputError
        If all crops would be padded too much because of it.
    """
    listed, fetched = tee(cells)
    measured = run_ahead(_size, zip(listed, fetches(fetched), strict=True), cores, _AHEAD)
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
        largest = (
            f"{widest[1]} has {widest[0]} x {highest[0]} pixels"
            if widest[1] == highest[1]
            else f"{widest[1]} is {widest[0]} pixels wide and {highest[1]} {highest[0]} high"
        )
        raise InputError(
            f"these crops differ too much in size: {largest}, and padded to that size they would "
            f"take {padding:.0f} times the space; pack crops of similar size together"
        )
    try:
        refuse_large(widest[0], highest[0])
    except ImageError as error:
        raise InputError(
            "these crops do not fit into one store: all would be padded to the largest width and "
            f"height, and {error}; pack crops of similar size together"
        ) from error
    return Layout(count, highest[0], widest[0], compress, preprocessing)


def _size(item: tuple[Cell, Fetch]) -> tuple[str, tuple[int, int]]:
    """Name of a cell, and height and width of its crop; 0 if it cannot be read."""
    cell, fetch = item
    name = path_of(cell.source, cell.member)
    try:
        data = fetch()
        height, width = crop_size(data) if isinstance(data, bytes) else data.shape[:2]
    except UnreachableError:  # it may be the largest
        raise
    except Exception:  # noqa: BLE001 - reading it again will say why
        return name, (0, 0)
    return name, (height, width) if height and width else (0, 0)  # a damaged header has no height
