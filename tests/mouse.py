"""A mouse that the X server itself moves (XTEST), for what only a real one can do: drag and drop."""

import ctypes
import ctypes.util
import time
from threading import Thread

import pytest

_STEPS, _PAUSE = 12, 0.03
_LEFT = 1


def _library(name):
    found = ctypes.util.find_library(name)
    if found is None:
        pytest.skip(f"lib{name} is not installed; tests/debian-packages.sh names what to install")
    return ctypes.CDLL(found)


def drag(start, end):
    """Press at one place of the screen, move, release at another: x, y in pixels each.

    Qt waits inside a drag, so a thread moves the mouse. Returns it.
    """
    x11, xtst = _library("X11"), _library("Xtst")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    assert display, "there is no X server"

    def send(function, *values):
        function(display, *values, ctypes.c_ulong(0))
        x11.XFlush(display)
        time.sleep(_PAUSE)

    def move(x, y):
        send(xtst.XTestFakeMotionEvent, -1, round(x), round(y))

    def act():
        move(*start)
        send(xtst.XTestFakeButtonEvent, _LEFT, 1)
        for step in range(1, _STEPS + 1):
            move(*(a + (b - a) * step / _STEPS for a, b in zip(start, end, strict=True)))
        move(end[0] + 1, end[1])
        time.sleep(10 * _PAUSE)
        send(xtst.XTestFakeButtonEvent, _LEFT, 0)
        x11.XCloseDisplay(display)

    thread = Thread(target=act, daemon=True)
    thread.start()
    return thread
