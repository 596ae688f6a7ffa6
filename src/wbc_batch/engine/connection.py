"""The connection to a scheduler: questions that end, and what it means where they fail."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from distributed import Client

from wbc_batch.errors import IncompleteRunError

__all__ = ["asked", "connected", "connection_lost", "lacks_package"]

_Answer = TypeVar("_Answer")


def asked(client: Client, question: Callable[[], Awaitable[_Answer]], timeout: float) -> _Answer:
    """Ask a client something, but not for ever: a scheduler or worker that is frozen never answers.

    Parameters
    ----------
    client : distributed.Client
    question : callable
        A method of the client.
    timeout : float
        Seconds.

    Raises
    ------
    TimeoutError
        If there is no answer in time.
    """

    async def bounded() -> _Answer:
        return await asyncio.wait_for(question(), timeout)

    return client.sync(bounded)


def connection_lost() -> IncompleteRunError:
    """Say that the scheduler is gone."""
    return IncompleteRunError(
        "the connection to the Dask scheduler was lost; repeat the command to continue"
    )


@contextmanager
def connected(*expected: type[Exception]) -> Iterator[None]:
    """Say so if the scheduler is lost inside, whatever it is asked.

    Parameters
    ----------
    *expected : type
        Of errors that mean something else here.

    Raises
    ------
    IncompleteRunError
        Instead of the errors of Dask's connections, which have no number of the operating system.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None or isinstance(error, expected):
            raise
        raise connection_lost() from error


def lacks_package(error: Exception) -> bool:
    """Tell whether a worker could not find what it was to call: it has no such package, or an old one.

    Dask sends some exceptions as the text of their representation.
    """
    missing = (ImportError, AttributeError)
    names = ("ImportError", "ModuleNotFoundError", "AttributeError")
    return isinstance(error, missing) or str(error).startswith(names)
