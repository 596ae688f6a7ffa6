"""Whether a worker sees the input at all: a file system that is not there must not become rows."""

import os
from pathlib import Path, PurePath

from wbc_batch.engine.plan import ShardSpec
from wbc_batch.paths import exists, is_folder
from wbc_batch.sources import is_url, refuse_silent
from wbc_batch.sources.folders import is_hidden

__all__ = ["refuse_blind", "refuse_emptied"]


def refuse_blind(spec: ShardSpec) -> None:
    """Keep a file system that is not there from becoming thousands of rows that say so."""
    base = Path(spec.job.base)
    # A file that is a cell itself may be gone: that is its own row.
    stores = {
        cell.store
        for cell in spec.cells
        if cell.store != cell.source or cell.member or cell.index is not None
    }
    urls = set(filter(is_url, stores))
    local = stores - urls
    if local and not any(exists(base / store) for store in local):
        raise FileNotFoundError(f"the worker does not see {min(local)}")
    for url in urls:
        refuse_silent(url)


def refuse_emptied(spec: ShardSpec) -> None:
    """Likewise one that is not mounted any more: its folder is there, and nothing in it."""
    base = Path(spec.job.base)
    folders = {cell.store for cell in spec.cells if not is_url(cell.store)}
    folders = {store for store in folders if is_folder(base / store)}
    for store in folders:
        if _is_empty(base / store):
            raise FileNotFoundError(f"the worker sees nothing in {store}")
    # Of an array only the store is known, not where its cells lie in it.
    listed = [cell for cell in spec.cells if cell.store in folders and cell.place is None]
    if len(listed) == len(spec.cells) and all(
        _is_gone(base / cell.store / cell.member) for cell in listed
    ):
        first = PurePath(listed[0].store, listed[0].member)
        raise FileNotFoundError(f"the worker does not see {first}, nor what was listed beside it")


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:  # the first one will do, of millions
            return all(is_hidden(entry.name) for entry in entries)
    except PermissionError:  # who knows
        return False


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:  # it is there, for others
        return False
    except OSError:
        return True
    return False
