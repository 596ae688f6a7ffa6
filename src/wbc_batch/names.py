"""Names of files, which need not be text: their bytes, and what tables and messages show of them."""

__all__ = ["name_bytes", "printable"]


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
