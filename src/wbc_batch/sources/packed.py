"""How a packed store is laid out: what `wbc_batch.sources.pack` writes and classifying reads back.

A zarr v3 group. Its array ``crops`` holds the pixels, (N, H, W, 3), each crop in its top left corner; the
arrays beside it have one value per crop: its true size, and what it was before it was packed. The
attribute `MARK` of the group says that it is one. A store may also hold the canonical crops, (N, S, S, 3), in
the array `PREPARED`, and the sizes of their nuclei, (N,), in `SIZES`; the attribute named as the former says
what made them.
"""

from dataclasses import asdict
from typing import Any

from wbc_batch.classifier.preprocessing import REVISION, Preprocessing
from wbc_batch.sources.cells import Box, Cell, Place

__all__ = [
    "COLUMNS",
    "CROPS",
    "FILL",
    "GROUPING",
    "MARK",
    "PARENT",
    "PREPARED",
    "SIZES",
    "VERSION",
    "Row",
    "cell_of",
    "preparation",
    "restored",
    "row_of",
]

#: Attribute of the group, whose value is the version of this layout.
MARK = "wbc_batch_packed"
VERSION = 1

CROPS = "crops"
PREPARED = "prepared"
SIZES = "nucleus_size"

#: What zarr gives for pixels that are missing. No picture is all of this value, many are all black or white.
FILL = 1

#: Array of what each cell is counted with by the rule of this name, which `group` may not have been.
PARENT = "parent"

#: Arrays beside the crops, with their types. What a crop has not is "" or -1.
COLUMNS = {
    "source": "string",
    "member": "string",
    "index": "int64",
    "group": "string",
    PARENT: "string",
    "x": "int64",
    "y": "int64",
    "width": "int64",
    "height": "int64",
    "given_label": "string",
    # Of the crop as it lies in the store; 0 where it could not be read, and `error` says why.
    "crop_height": "int32",
    "crop_width": "int32",
    "error": "string",
}

#: Those of `COLUMNS` that cells can be grouped by.
GROUPING = ("source", "member", "index", "group", "given_label")

#: One value for each of `COLUMNS`.
Row = dict[str, Any]

# zarr's strings are UTF-8. The bytes of names that are not, which Python keeps as surrogates, travel
# as private characters.
_TO_PRIVATE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_FROM_PRIVATE = {private: surrogate for surrogate, private in _TO_PRIVATE.items()}


def preparation(preprocessing: Preprocessing) -> dict[str, Any]:
    """Everything that canonical crops hang on besides the picture, as JSON gives it back."""
    numbers = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(preprocessing).items()}
    return {"revision": REVISION, **numbers}


def row_of(cell: Cell, parent: str, height: int, width: int, error: str) -> Row:
    """Describe a cell, its group by the rule ``parent``, and its crop as the store keeps them."""
    box = cell.box or Box(-1, -1, -1, -1)
    return {
        "source": cell.source.translate(_TO_PRIVATE),
        "member": cell.member.translate(_TO_PRIVATE),
        "index": -1 if cell.index is None else cell.index,
        "group": cell.group.translate(_TO_PRIVATE),
        PARENT: parent.translate(_TO_PRIVATE),
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "given_label": cell.given_label.translate(_TO_PRIVATE),
        "crop_height": height,
        "crop_width": width,
        "error": error.translate(_TO_PRIVATE),
    }


def cell_of(row: Row, group: str, place: Place) -> Cell:
    """Give a cell back what it was before it was packed, counted by the column `group`; now at `place`."""
    boxed = int(row["width"]) >= 0
    index = None if int(row["index"]) < 0 else int(row["index"])
    return Cell(
        source=restored(row["source"]),
        member=restored(row["member"]),
        index=index,
        group="" if group == "index" and index is None else restored(row[group]),
        box=Box(*(int(row[name]) for name in ("x", "y", "width", "height"))) if boxed else None,
        given_label=restored(row["given_label"]),
        place=place,
    )


def restored(text: Any) -> str:
    """Give a text of the store back the bytes that are not UTF-8."""
    return str(text).translate(_FROM_PRIVATE)
