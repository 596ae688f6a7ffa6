"""Stores that URLs name. That a part of one does not come says nothing about the cells in it."""

import asyncio
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from zarr.storage import FsspecStore, WrapperStore

from wbc_batch.errors import UnreachableError, in_a_line

__all__ = ["PatientStore", "open_url"]

# Seconds between the times that something is asked for.
_PAUSES = (0.5, 2.0, 5.0)
# Of archives that URLs lead into, such as zip::s3://...: what came is not what was written.
_DAMAGE = (EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error)

_Answer = TypeVar("_Answer")


def open_url(url: str) -> "PatientStore":
    """Open the store that a URL names, for reading; nothing is asked for yet."""
    return PatientStore(FsspecStore.from_url(url, read_only=True))


class PatientStore(WrapperStore[Any]):
    """A store of zarr that asks again for what does not come.

    File systems raise anything where nothing comes, and codecs where what came is damaged. Here the two
    can be told from each other: reading raises `UnreachableError` for the first.
    """

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Read one file or a part of it; None if there is no such file."""
        return await _asked_for(key, partial(self._store.get, key, prototype, byte_range))

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        """Read parts of some files."""
        wanted = list(key_ranges)
        names = ", ".join(sorted({key for key, _ in wanted}))
        return await _asked_for(names, partial(self._store.get_partial_values, prototype, wanted))


async def _asked_for(name: str, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    for pause in (*_PAUSES, None):
        try:
            return await ask()
        except _DAMAGE:
            raise
        except Exception as error:
            # The file is there, but shorter than it was.
            if "not satisfiable" in str(error).lower():
                raise
            if pause is None:
                raise UnreachableError(
                    f"{name} cannot be read from the zarr store: {in_a_line(error)}"
                ) from error
        await asyncio.sleep(pause)
    raise AssertionError
