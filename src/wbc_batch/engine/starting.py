"""What it takes to start what may hang: no wait for ever, and Ctrl-C where it belongs, never lost."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from distributed import Client

from wbc_batch.errors import in_a_line

__all__ = [
    "OverdueError",
    "apart",
    "connect",
    "deaf",
    "interrupts_remembered",
    "quiet",
    "restored",
    "short",
]

_Made = TypeVar("_Made")

_TICK = 0.5  # seconds between looks at the clock


class OverdueError(TimeoutError):
    """Something took longer than it was given."""


def apart(function: Callable[[], _Made], timeout: float) -> _Made:
    """Call something on a thread of its own, and wait for it, but not for ever.

    The processes that it starts do not see Ctrl-C (`deaf`).

    Parameters
    ----------
    function : callable
    timeout : float
        Seconds.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    OverdueError
        If it takes longer; the thread is left to itself then. What the function raises is raised, too.
    """
    outcome: Future[_Made] = Future()

    def call() -> None:
        try:
            with deaf():
                outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            outcome.set_exception(error)

    threading.Thread(target=call, name="apart", daemon=True).start()
    deadline = time.monotonic() + timeout
    # A short wait lets Ctrl-C through on every system.
    while not wait([outcome], _TICK).done:
        if time.monotonic() > deadline:
            raise OverdueError(f"no answer within {timeout:.0f} s")
    return outcome.result()


@contextmanager
def deaf() -> Iterator[None]:
    """Start processes that do not see Ctrl-C, here and by threads that are started here.

    It goes to every process of a terminal, and only the one that started the run should act on it: this
    one, at once. Processes and threads inherit the signals that are blocked.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts it with the first process, and then lets SIGINT through (before Python 3.13).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of what takes a moment and cannot be left half done.

    Raises
    ------
    KeyboardInterrupt
        In the end, if one of them came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda it, _: came.append(it)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def interrupts_remembered() -> Iterator[list[int]]:
    """Remember Ctrl-C and SIGTERM: Python drops one that comes while it throws an object away.

    Yields
    ------
    list of int
        The signals that came. Each raises KeyboardInterrupt at once; code that runs on all the same should
        raise it when it sees one here.

    Raises
    ------
    KeyboardInterrupt
        In the end, if one of them came.
    """
    came: list[int] = []

    def remember(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    plain = signal.default_int_handler  # other handlers are somebody's own
    numbers = [
        it for it in (signal.SIGINT, signal.SIGTERM) if here and signal.getsignal(it) is plain
    ]
    for number in numbers:
        signal.signal(number, remember)
    try:
        yield came
    finally:
        for number in numbers:
            signal.signal(number, plain)
    if came:
        raise KeyboardInterrupt


@contextmanager
def restored(names: Iterable[str]) -> Iterator[None]:
    """Restore variables of the environment: nannies leave theirs in it, and the next would take them."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def connect(**arguments: Any) -> Client:
    """Connect to a scheduler; Ctrl-C waits until that is through.

    Parameters
    ----------
    **arguments
        Of `distributed.Client`.
    """
    client = Client.__new__(Client)
    try:
        with _interrupts_later():
            client.__init__(**arguments, set_as_default=False)
    except KeyboardInterrupt:
        client.close()
        raise
    except Exception:
        # Else it would wait for itself, for long and in vain, when it is thrown away.
        client.status = "closed"
        raise
    return client


def short(error: BaseException) -> str:
    """Tell the first cause of an error in one line; Dask wraps its own errors around others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return in_a_line(f"{type(error).__name__}: {error}", 300)


@contextmanager
def quiet() -> Iterator[list[BaseException]]:
    """Keep Dask's log off the terminal: what matters of it comes as our own errors.

    Yields
    ------
    list of exceptions
        Those that nobody waited for: all that tells that jobs could not be submitted.
    """
    unheard: list[BaseException] = []

    def refuse(record: logging.LogRecord) -> bool:
        if record.name.startswith(("tornado", "asyncio")) and record.exc_info:
            unheard.extend(error for error in record.exc_info[1:2] if error)
        return False

    # Dask's loggers all write through the handlers of this one, whose level clusters change.
    places = [*logging.getLogger("distributed").handlers, logging.getLogger("asyncio")]
    for place in places:
        place.addFilter(refuse)
    try:
        yield unheard
    finally:
        for place in places:
            place.removeFilter(refuse)
