"""Names of files, which need not be text: their bytes; how tables, messages and commands show them."""

import os
import re
import shlex
import subprocess
import unicodedata
from collections.abc import Iterable

__all__ = ["command_text", "composed", "gone", "name_bytes", "printable"]

_ON_WINDOWS = os.name == "nt"

# Files with longer paths are listed on Windows, and then not found unless long paths are turned on.
_LONG = 260

# What no terminal of Windows has another use for.
_PLAIN = re.compile(r"[\w.:/\\=-]+")
_ESCAPE = re.compile(r"\\x[89a-f][0-9a-f]")


def name_bytes(name: str) -> bytes:
    """Return the bytes of any name that Python gives a file.

    On Linux they are those that the file system has; bytes that are not UTF-8 are surrogates in `name`. On
    Windows a name may hold surrogates of other kinds, which stand alone.
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def printable(name: str) -> str:
    """Show what is not UTF-8 in a name as hexadecimal escapes."""
    return name_bytes(name).decode("utf-8", "backslashreplace")


def composed(name: str) -> str:
    """Write every letter as one sign, as most keyboards do; on macOS a folder may have "u" and two dots."""
    return unicodedata.normalize("NFC", name)


def command_text(words: Iterable[str]) -> str:
    """Write a command, or some words of it, as one types them here: in a shell of POSIX, or of Windows.

    In cmd.exe nothing keeps the name of a variable between two percent signs from being replaced.
    """
    return " ".join(map(_quoted, words)) if _ON_WINDOWS else shlex.join(words)


def _quoted(word: str) -> str:
    """Quote a word for cmd.exe and PowerShell, which have signs of their own besides spaces."""
    said = subprocess.list2cmdline([word])
    if said.startswith('"') or _PLAIN.fullmatch(word):
        return said
    escapes = said[len(said.rstrip("\\")) :]  # backslashes before a quote count half
    return f'"{said}{escapes}"'


def gone(place: str) -> str:
    """Say that a file is not there; or perhaps is, under a name that tables show as `printable` does.

    Parameters
    ----------
    place : str
        The way to it, with forward slashes.
    """
    if _ESCAPE.search(place):
        return (
            "the file is gone, or its name is not UTF-8: such a file cannot be found from the "
            "tables of a run"
        )
    if _ON_WINDOWS and len(os.path.abspath(place)) >= _LONG:  # noqa: PTH100 - it never raises
        return (
            "the file is gone, or its path is too long for Windows, which by default takes fewer than "
            f"{_LONG} letters: turn long paths on, or move the cells to a folder nearer to the drive"
        )
    return "the file is gone"
