"""What kind of thing an input is, told by its first bytes as far as possible."""

import re
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from zipfile import is_zipfile

from wbc_batch.paths import is_file, is_folder, refuse_passing, refuse_unanswered

__all__ = [
    "BZIP2",
    "GZIP",
    "TIFF",
    "XZ",
    "ZARR_FILES",
    "Kind",
    "container_in",
    "is_url",
    "kind_of",
    "stem",
]

#: How files begin; one of some names is in the folder of every zarr store.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_COMPRESSED = (GZIP, BZIP2, XZ)
_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TABLES = (".csv", ".tsv", ".parquet", ".pq")
_PARQUET = b"PAR1"
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}
_SUFFIXES = re.compile(
    r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz|(ome\.)?(tiff?|tf[28]|btf)|zarr|csv|tsv|parquet|pq)$",
    re.IGNORECASE,
)
# Two letters and more: C:/ is a drive. fsspec has chains, such as simplecache::s3://bucket and, with an
# absolute path, zip::/a.zip; slide::1 is a name.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::(/|[A-Za-z]:[/\\]|.*://))", re.DOTALL)


class Kind(StrEnum):
    """What cells can come from."""

    FOLDER = "folder"
    ZIP = "zip"
    TAR = "tar"
    TIFF = "tiff"
    ZARR = "zarr"
    TABLE = "table"
    FILE = "file"


def is_url(name: str) -> bool:
    """Tell the URL of a store, such as ``s3://bucket/crops.zarr``, from a path."""
    return _URL.match(name) is not None


def kind_of(place: str | Path) -> Kind:
    """Tell what an input is. What cannot be told, or is not there, is a `Kind.FILE`.

    A table is told by its name alone: what it listed can be read when it is gone.

    Raises
    ------
    UnreachableError
        If the file system does not answer for now.
    """
    if isinstance(place, str) and is_url(place):
        return Kind.ZARR
    path = Path(place)
    refuse_unanswered(path)
    if is_folder(path):
        return Kind.ZARR if any(is_file(path / name) for name in ZARR_FILES) else Kind.FOLDER
    if path.suffix.lower() in _TABLES:
        return Kind.TABLE
    if not is_file(path):  # opening a pipe would wait for ever
        return Kind.FILE
    try:
        with path.open("rb") as file:
            head = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    except OSError as error:
        refuse_passing(path, error)
        return Kind.FILE
    return _kind_of_head(head, path.name.lower())


def _kind_of_head(head: bytes, name: str) -> Kind:
    if head.startswith(_ZIP):
        return Kind.ZIP
    if head.startswith(TIFF):
        return Kind.TIFF
    if head.startswith(_TAR_MAGIC, _TAR_MAGIC_AT) or name.endswith(".tar"):
        return Kind.TAR
    if head.startswith(_COMPRESSED) and name.endswith(_COMPRESSED_TAR):
        return Kind.TAR
    return Kind.FILE


def container_in(data: bytes) -> str:
    """Say what to do with a file of many images where one should be, by its content; "" if it is none."""
    kind = _kind_of_head(data, "")
    if kind in (Kind.ZIP, Kind.TAR) or data.startswith(_PARQUET):
        name = f"a {kind.upper()} archive" if kind is not Kind.FILE else "a Parquet table"
        return f"this is {name}; give it as a separate input to classify its images"
    if data.startswith(_COMPRESSED):
        return (
            "this is a compressed file; unpack it, or if it is a TAR archive, rename it to end in "
            ".tar.gz, .tar.bz2 or .tar.xz and give it as a separate input"
        )
    for signature, name in _FOREIGN.items():
        if data.startswith(signature):
            return f"{name} archives cannot be read; unpack it, or convert it to ZIP or TAR"
    if is_zipfile(BytesIO(data)):  # it unpacks itself
        return (
            "this is a program that contains a ZIP archive; unpack it, or convert it to ZIP or TAR"
        )
    return ""


def stem(name: str) -> str:
    """Take the suffix of a container off its name: ``slide-1.ome.tif`` is ``slide-1``."""
    return _SUFFIXES.sub("", name) or name
