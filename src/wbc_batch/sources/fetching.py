"""From a listed cell to its encoded bytes or its array: what all kinds of sources have in common."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Generic, Protocol, TypeVar

from numpy.typing import NDArray

from wbc_batch.errors import ContainerError, ImageError, reason
from wbc_batch.names import gone
from wbc_batch.paths import is_folder, refuse_passing
from wbc_batch.sources.cells import Cell

__all__ = ["MAX_BYTES", "Container", "Fetch", "LoadedAhead", "read_file", "refuse_large_file"]

#: Files with more bytes than this are refused before they are read.
MAX_BYTES = 2**30

#: Gets the encoded bytes of a cell or its pixels; on any thread. Raises `ImageError`.
Fetch = Callable[[], bytes | NDArray]

# Blocks or images that are loaded before a cell asks for them.
_AHEAD = 2
# Blocks or images that are kept for later cells.
_KEPT = 4

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Container(Protocol):
    """Something opened that holds many cells. It closes when nothing refers to it any more."""

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give, for each cell in order, a way to its bytes or pixels."""
        ...


class LoadedAhead(Generic[_Key, _Value]):
    """What several cells share, such as a block of crops: loaded once, some of it ahead of time.

    Never more than a few are in memory, however many cells are asked for ahead.

    Parameters
    ----------
    load : callable
        From a key to what is shared.
    """

    def __init__(self, load: Callable[[_Key], _Value]) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="load")
        self._kept: OrderedDict[_Key, Future[_Value]] = OrderedDict()
        self._upcoming: deque[_Key] = deque()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> Callable[[], _Value]:
        """Give a way to what is shared; in the order in which cells will need it."""
        with self._lock:
            if not self._upcoming or self._upcoming[-1] != key:
                self._upcoming.append(key)
        return partial(self._value, key)

    def _value(self, key: _Key) -> _Value:
        with self._lock:
            future = self._kept.get(key)
            mine = future is None
            if future is None:
                future = Future()
                self._keep(key, future)
            self._kept.move_to_end(key)
            self._begin_next(key)
        if mine:
            try:
                future.set_result(self._load(key))
            except BaseException as error:  # whoever waits for it must know
                future.set_exception(error)
                raise
        return future.result()

    def _begin_next(self, key: _Key) -> None:
        if key in self._upcoming:
            while self._upcoming.popleft() != key:
                pass
        for following in islice(self._upcoming, _AHEAD):
            if following not in self._kept:
                self._keep(following, self._pool.submit(self._load, following))

    def _keep(self, key: _Key, future: Future[_Value]) -> None:
        self._kept[key] = future
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def read_file(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    ImageError
        Saying why it cannot be read. The message does not repeat the file's name.
    UnreachableError
        If that is not to do with the file.
    """
    try:
        status = path.stat()
        # A pipe or a device would block for ever, so ask before opening.
        if not S_ISREG(status.st_mode):
            raise _not_regular(path)
        refuse_large_file(status.st_size)
        return path.read_bytes()
    except FileNotFoundError as error:
        linked = path.is_symlink()
        raise ImageError(
            "the file is a link to a file that does not exist" if linked else gone(path.as_posix())
        ) from error
    except OSError as error:
        refuse_passing(path, error)
        raise ImageError(f"the file cannot be opened ({reason(error)})") from error
    except ImageError:
        raise
    except ValueError as error:  # a NUL in it
        raise ImageError("the file cannot be opened (no file can have this name)") from error


def _not_regular(path: Path) -> ImageError:
    if is_folder(path) and path.suffix.lower() == ".zarr":
        return ContainerError(
            "this is a zarr store; give it as a separate input to classify its crops"
        )
    return ImageError("this is not a regular file")


def refuse_large_file(size: int) -> None:
    """Refuse a file of too many bytes.

    Raises
    ------
    ImageError
    """
    if size > MAX_BYTES:
        raise ImageError(f"a file of {size / 1e9:.1f} GB is too large for an image of a cell")
