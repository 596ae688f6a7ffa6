"""What this machine can give to workers: cores and memory."""

from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from wbc_batch.errors import InputError

__all__ = ["cores", "default_workers", "memory_of_workers"]

# A worker with torch and a model takes about half of it.
_MEMORY_PER_WORKER = 2**30
# With less it is ended before it has done anything.
_LEAST_SHARE = 2**29


def cores() -> int:
    """Count the cores that this process may use, by its affinity and control group."""
    return CPU_COUNT


def default_workers(device: str) -> int:
    """Choose how many workers suit this machine.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    int
        One for a GPU; else one for each core that has a GiB of memory.
    """
    if device != "cpu":
        return 1
    return max(min(CPU_COUNT, _memory() // _MEMORY_PER_WORKER), 1)


def memory_of_workers(wanted: str | None, workers: int) -> int:
    """Bytes that each of some workers on this machine may use.

    Parameters
    ----------
    wanted : str or None
        Such as ``2GiB`` or ``800 MB``; None shares out the memory of the machine, or of the control
        group that this process is in.
    workers : int

    Raises
    ------
    InputError
        If it is no amount of memory, or their shares are too small to work with.
    """
    if wanted is None:
        share = _memory() // workers
        if share < _LEAST_SHARE and workers > 1:
            raise InputError(
                f"{workers} workers would have {format_bytes(share)} of memory each, but each needs about "
                f"{format_bytes(_MEMORY_PER_WORKER)}; ask for at most {default_workers('cpu')} here"
            )
        return share
    try:
        limit = parse_bytes(wanted)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise InputError(f"{wanted!r} is not an amount of memory; write it like 2GiB or 800MB")
    return limit


def _memory() -> int:
    """Bytes of the machine, or of the control group that this process is in."""
    from distributed.system import MEMORY_LIMIT  # slow to import, and cores can be counted without

    return int(MEMORY_LIMIT)
