"""The door to all pixels: from listed cells to their images."""

import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.classifier.preprocessing import CanonicalCrop, Preprocessing, canonical_crop
from wbc_batch.errors import ImageError, UnreachableError, reason
from wbc_batch.paths import refuse_passing
from wbc_batch.sources import images
from wbc_batch.sources.ahead import map_apart, run_ahead
from wbc_batch.sources.archives import TarMembers, ZipMembers
from wbc_batch.sources.arrays import ZarrCrops
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.fetching import Container, Fetch, read_file
from wbc_batch.sources.kinds import Kind, is_url, kind_of
from wbc_batch.sources.stacks import TiffStack
from wbc_batch.sources.tables import TableImages

__all__ = [
    "CellReader",
    "Read",
    "attempt_read",
    "calm_decoders",
    "fetches",
    "prepared_crops",
    "prepared_readers",
    "read_image",
    "readers",
]

_Result = TypeVar("_Result")

#: Reads one cell, on any thread: RGB, uint8, shape (H, W, 3). Raises `ImageError`.
Read = Callable[[], NDArray[np.uint8]]

_OPENERS: dict[Kind, Callable[[Path], Container]] = {
    Kind.ZIP: ZipMembers,
    Kind.TAR: TarMembers,
    Kind.TIFF: TiffStack,
}

# Cells from which on processes are worth their start; and threads beyond which the interpreter's lock lets no
# more be read, but less.
_MANY, _FEW_THREADS = 512, 4

# Arrays and tables that a `CellReader` keeps: each holds some blocks of crops, or some fields.
_KEPT = 2


def readers(cells: Iterable[Cell], base: Path | None = None) -> Iterator[Read]:
    """Give, for each cell in order, a function that reads it on any thread.

    Containers are opened once for all their cells that follow each other. Taking the next reader may
    begin to load what it will need, so take a bounded number ahead.

    Parameters
    ----------
    cells : iterable of Cell
    base : Path, optional
        The folder that relative sources start from. Default: the current one.

    Yields
    ------
    callable
        See `Read` and `read_image`.
    """
    return (partial(_read, fetch) for fetch in fetches(cells, base))


def fetches(cells: Iterable[Cell], base: Path | None = None) -> Iterator[Fetch]:
    """Give, for each cell in order, a way to its encoded bytes or its pixels; see `readers`."""
    for container, some in _opened_for(cells, base):
        yield from container.fetch(some)


def prepared_readers(
    cells: Iterable[Cell], preprocessing: Preprocessing, base: Path | None = None
) -> Iterator[Callable[[], CanonicalCrop]]:
    """Give, for each cell in order, a function that makes its canonical crop on any thread.

    A packed store may hold it ready (see `wbc_batch.sources.pack`). Else as `readers`.

    Parameters
    ----------
    cells : iterable of Cell
    preprocessing : Preprocessing
    base : Path, optional
        The folder that relative sources start from. Default: the current one.

    Yields
    ------
    callable
        Raises `ImageError`.
    """
    for container, some in _opened_for(cells, base):
        ready = container.prepared(preprocessing) if isinstance(container, ZarrCrops) else None
        if ready is not None:
            yield from ready.fetch(some)
        else:
            yield from (partial(_prepare, preprocessing, get) for get in container.fetch(some))


def prepared_crops(
    cells: Sequence[Cell], preprocessing: Preprocessing, base: Path, cores: int, ahead: int
) -> Iterator[CanonicalCrop | ImageError]:
    """Make canonical crops on some cores, a bounded number ahead of the consumer, in order.

    Parameters
    ----------
    cells : sequence of Cell
    preprocessing : Preprocessing
    base : Path
        The folder that relative sources start from.
    cores : int
        One works on a thread. More get a process each, but for few cells, which some threads read.
    ahead : int
        Crops that are there, or under way, and not yet taken, at least.

    Yields
    ------
    CanonicalCrop or ImageError

    Raises
    ------
    ChildProcessError
        If a process dies of an image.
    UnreachableError
        If a store that a URL names does not answer.
    """
    if cores > 1 and len(cells) >= _MANY:
        prepare = partial(_prepare_some, preprocessing=preprocessing, base=base)
        # So few that every process gets some tasks.
        at_once = min(max(len(cells) // (8 * cores), 8), 64)
        return map_apart(prepare, cells, cores, at_once)
    reads = prepared_readers(cells, preprocessing, base)
    return run_ahead(attempt_read, reads, min(cores, _FEW_THREADS), ahead)


def _prepare_some(
    cells: Sequence[Cell], preprocessing: Preprocessing, base: Path
) -> list[CanonicalCrop | ImageError]:
    calm_decoders()
    return [attempt_read(read) for read in prepared_readers(cells, preprocessing, base)]


def attempt_read(read: Callable[[], _Result]) -> _Result | ImageError:
    """Read a cell; what goes wrong is returned, but raised if it is not to do with the cell."""
    try:
        return read()
    except UnreachableError:
        raise
    except ImageError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one picture that no rule foresaw spoils no other
        refuse_passing("the image", error)
        return ImageError(f"the image cannot be read ({type(error).__name__})")


def calm_decoders() -> None:
    """Keep decoders to the thread that calls them, and what they think of damaged files off the terminal."""
    import cv2

    cv2.setNumThreads(1)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(cell: Cell, base: Path | None = None) -> NDArray[np.uint8]:
    """Read the pixels of a listed cell.

    Grey, transparent and 16-bit images become 8-bit RGB by the classifier's own rule
    (`wbc_batch.classifier.images.as_rgb`), and large JPEG files are decoded smaller
    (`wbc_batch.sources.images.decode_crop`). Orientation tags are ignored: a cell has no upside.

    Parameters
    ----------
    cell : Cell
    base : Path, optional
        The folder that a relative `cell.source` starts from. Default: the current one.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.

    Raises
    ------
    ImageError
        Saying why the cell cannot be read. The message does not repeat the file's name.
    """
    (read,) = readers([cell], base)
    return read()


class CellReader:
    """Reads single cells, in any order and on any thread, as `read_image` does, but quicker.

    The last arrays and tables stay open with the blocks of crops, or the fields of view, that were read last.

    Parameters
    ----------
    base : Path, optional
        The folder that a relative `Cell.source` starts from. Default: the current one.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = Path() if base is None else base
        self._kept: OrderedDict[tuple[str, int], Container] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, cell: Cell) -> NDArray[np.uint8]:
        """Read the pixels of a listed cell; see `read_image`."""
        key = (cell.store, _last_change(self._base / cell.store))
        with self._lock:
            container = self._kept.pop(key, None)
            if container is None:
                container = _open(cell.store, cell, self._base)
            if isinstance(container, ZarrCrops | TableImages):
                self._kept[key] = container
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        try:
            (fetch,) = container.fetch([cell])
            return _read(fetch)
        except ImageError:  # what is wrong may be mended: look again when asked again
            with self._lock:
                self._kept.pop(key, None)
            raise


def _last_change(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # a URL, or gone: then opening it says so
        return 0


def _read(fetch: Fetch) -> NDArray[np.uint8]:
    try:
        data = fetch()
    except UnreachableError:
        _opened.cache_clear()  # a file that is open may have gone stale
        raise
    return as_rgb(images.decode_crop(data) if isinstance(data, bytes) else data)


def _prepare(preprocessing: Preprocessing, fetch: Fetch) -> CanonicalCrop:
    return canonical_crop(_read(fetch), preprocessing)


def _raise(error: ImageError) -> Any:
    raise error


class _Unusable:
    """What could not be opened."""

    def __init__(self, error: ImageError) -> None:
        self._error = error

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        return (partial(_raise, self._error) for _ in cells)


class _Files:
    """Files in folders, and files that are cells themselves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        for cell in cells:
            if cell.index is not None:
                yield partial(_raise, ImageError("the stack or array no longer exists"))
            else:
                yield partial(read_file, self._path / cell.member)


def _opened_for(
    cells: Iterable[Cell], base: Path | None
) -> Iterator[tuple[Container, Iterator[Cell]]]:
    """Open a container for each run of cells that it holds."""
    for store, some in groupby(cells, key=lambda cell: cell.store):
        first = next(some)
        try:
            container = _open(store, first, Path() if base is None else base)
        except ImageError as error:
            container = _Unusable(error)
        yield container, chain([first], some)  # noqa: B031 - one after the other


def _open(store: str, cell: Cell, base: Path) -> Container:
    """Open what holds a cell."""
    if is_url(store):
        return ZarrCrops(store)
    path = base / store
    if cell.place is None and cell.index is None and not cell.member:
        return _Files(path)  # an image file, told without a look inside
    kind = kind_of(path)
    if kind is Kind.ZARR:
        return ZarrCrops(str(path))
    if kind is Kind.TABLE:
        return TableImages(path)
    if kind not in _OPENERS:
        return _Files(path)
    try:
        status = path.stat()
    except OSError as error:
        refuse_passing(path, error)
        raise ImageError(f"the file cannot be opened ({reason(error)})") from error
    return _opened(kind, path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _opened(kind: Kind, path: Path, _changed: int, _size: int) -> Container:
    """Keep containers whose contents take time to list, for the shards that follow."""
    return _OPENERS[kind](path)
