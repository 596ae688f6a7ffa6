"""Crops, wherever they lie: steps of a stack, boxes in a field of view, cells of a batch run.

Plain data and ways to read them; knows neither layers nor Qt. No pixel is read until asked for.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.errors import ImageError
from wbc_batch.sources import Box, Cell, CellReader
from wbc_napari.torchvision_loader import load_torchvision

__all__ = ["BATCH", "CropStack", "Crops", "FieldCrops", "ListedCrops", "read_one"]

#: Crops that are read and classified together: few, so that progress moves and a cancel is quick.
BATCH = 64

#: A dask or zarr chunk is read whole anyway; up to this many crops it is also classified in one go.
MAX_BATCH = 512

#: Arrays of up to so many bytes are told apart by all of their pixels, larger ones by so many samples
#: across them, of so many pixels along each axis.
_WHOLE = 2**26
_SAMPLES, _SAMPLE = 32, 8

Wanted = Sequence[int] | NDArray[np.intp]


class Crops(Protocol):
    """Crops in a fixed order."""

    @property
    def name(self) -> str:
        """Name of the layer or run; also the group of its cells in a differential."""

    @property
    def sources(self) -> list[str]:
        """The files that they come from; the name of a layer that came from none."""

    def __len__(self) -> int: ...

    def cell(self, index: int) -> Cell:
        """Identify a crop."""

    def batches(self, wanted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Divide crops, by number and rising, into batches to be read together."""

    def fingerprint(self) -> str:
        """Tell the pixels behind the crops from others of the same name; "" where their files do."""

    def read(self, wanted: Wanted) -> Iterator[NDArray | ImageError]:
        """Read crops, (H, W) or (H, W, C) each; an error where there is none to be had."""


def read_one(crops: Crops, number: int) -> NDArray:
    """Read one crop.

    Raises
    ------
    ImageError
        If there is none to be had.
    """
    image = next(iter(crops.read([number])))
    if isinstance(image, ImageError):
        raise image
    return image


@dataclass(frozen=True, eq=False)
class CropStack:
    """A stack of crops as a layer holds it.

    Attributes
    ----------
    name : str
        The layer's name.
    source : str
        The file that the layer came from, else its name.
    data : array_like
        NumPy, dask or zarr: whatever slices. (N, H, W), with or without an axis of colours.
    colours : int or None
        Number of the axis of colours; None where the crops are grey.
    """

    name: str
    source: str
    data: Any
    colours: int | None = None

    @property
    def sources(self) -> list[str]:
        """The file that they come from."""
        return [self.source]

    @property
    def axis(self) -> int:
        """Number of the axis along which the crops lie."""
        return 1 if self.colours == 0 else 0

    def __len__(self) -> int:
        return int(self.data.shape[self.axis])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop, pixels."""
        _, height, width = _without_colours(self.data, self.colours)
        return height, width

    def cell(self, index: int) -> Cell:
        """Identify a crop by its place in the stack."""
        return Cell(source=self.source, member="", index=int(index), group=self.name)

    def batches(self, wanted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Divide crops into batches that follow the chunks of the array."""
        chunks = getattr(self.data, "chunks", None)
        # A tuple per axis in dask, a number in zarr.
        first = int(np.ravel(chunks[self.axis])[0]) if chunks else 1
        chunk = first if 1 <= first <= MAX_BATCH else 1
        step = chunk * max(1, BATCH // chunk)
        return np.split(wanted, np.flatnonzero(np.diff(wanted // step)) + 1) if len(wanted) else []

    def fingerprint(self) -> str:
        """Tell the pixels of the stack from others."""
        return _fingerprint(self.data)

    def read(self, wanted: Wanted) -> Iterator[NDArray | ImageError]:
        """Read crops; neighbours in one go, unless one of them cannot be read."""
        numbers = np.asarray(wanted, np.intp)
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            if len(run):
                span = slice(int(run[0]), int(run[-1]) + 1)
                block = _pixels(self.data, (slice(None), span) if self.axis else span)
                if isinstance(block, ImageError):
                    yield from self._one_by_one(run, block)
                elif self.colours is not None:
                    yield from np.moveaxis(block, self.colours, -1)
                else:
                    yield from block

    def _one_by_one(
        self, run: NDArray[np.intp], error: ImageError
    ) -> Iterator[NDArray | ImageError]:
        if len(run) == 1:
            yield error
            return
        for number in run:
            yield from self.read([number])


@dataclass(frozen=True, eq=False)
class FieldCrops:
    """Boxes in a field of view, or in a stack of fields.

    Attributes
    ----------
    name, source : str
        As in `CropStack`.
    data : array_like
        (H, W) or (N, H, W), with or without an axis of colours.
    boxes : ndarray of int64, shape (n, 4)
        x, y, width, height in pixels of the image.
    frames : ndarray of int64, shape (n,), or None
        The field of each box in a stack of them.
    colours : int or None
        As in `CropStack`.
    tight : bool
        The boxes lie close around the cells; they are read with room around them (`Box.with_room`).
    """

    name: str
    source: str
    data: Any
    boxes: NDArray[np.int64]
    frames: NDArray[np.int64] | None = None
    colours: int | None = None
    tight: bool = False

    @property
    def sources(self) -> list[str]:
        """The file that they come from."""
        return [self.source]

    def __len__(self) -> int:
        return len(self.boxes)

    def cell(self, index: int) -> Cell:
        """Identify a crop by its box, which survives that others are deleted.

        The box is written as a fragment of the image (W3C Media Fragments URI 1.0, 4.2.2); one that was drawn
        before says so: two marks are two cells.
        """
        frame = None if self.frames is None else int(self.frames[index])
        x, y, width, height = self.boxes[index].tolist()
        again = f"&copy={self._copies[index]}" if self._copies[index] else ""
        return Cell(self.source, f"#xywh={x},{y},{width},{height}{again}", frame, self.name)

    @cached_property
    def _copies(self) -> NDArray[np.intp]:
        """How many boxes before each are the same."""
        frames = np.zeros(len(self.boxes), np.int64) if self.frames is None else self.frames
        boxes = pd.DataFrame(np.column_stack([self.boxes, frames]))
        return np.asarray(boxes.groupby(list(boxes.columns)).cumcount(), np.intp)

    def fingerprint(self) -> str:
        """Tell the pixels of the image from others."""
        return _fingerprint(self.data)

    def batches(self, wanted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Divide crops into batches of a size."""
        return _equal_batches(wanted)

    def read(self, wanted: Wanted) -> Iterator[NDArray | ImageError]:
        """Cut boxes out, with their room, as far as that lies inside the image."""
        for index in wanted:
            yield self._cut(int(index))

    def _cut(self, index: int) -> NDArray | ImageError:
        *leading, rows, columns = _without_colours(self.data, self.colours)
        box = Box(*(int(value) for value in self.boxes[index]))
        frame = [] if self.frames is None else [int(self.frames[index])]
        outside = any(not 0 <= at < count for at, count in zip(frame, leading, strict=True))
        if outside or any(part.start >= part.stop for part in _inside(box, rows, columns)):
            return ImageError("the box lies outside the image")
        window = box.with_room() if self.tight else box
        place: list[Any] = [*frame, *_inside(window, rows, columns)]
        if self.colours is None:
            return _pixels(self.data, tuple(place))
        place.insert(self.colours, slice(None))
        crop = _pixels(self.data, tuple(place))
        if isinstance(crop, ImageError):
            return crop
        # The axis of the frame is gone; colours stand first, unless they were last.
        return crop if self.colours == len(place) - 1 else np.moveaxis(crop, 0, -1)


@dataclass(frozen=True, eq=False)
class ListedCrops:
    """Cells of a batch run, read from where it found them.

    Attributes
    ----------
    name : str
        Of the run.
    cells : sequence of Cell
    base : Path or None
        The folder that relative sources start from; None for the current one.
    ids : sequence of str
        What the run calls the cells: in an export as before their crops became files. Empty: as they say.
    """

    name: str
    cells: Sequence[Cell] = field(repr=False)
    base: Path | None = None
    ids: Sequence[str] = field(default=(), repr=False)

    @property
    def sources(self) -> list[str]:
        """The inputs of the run, with the folder that relative ones start from."""
        base = Path() if self.base is None else self.base
        return list(dict.fromkeys(str((base / cell.store).absolute()) for cell in self.cells))

    @cached_property
    def _reader(self) -> CellReader:
        """Keeps open what was read last."""
        return CellReader(self.base)

    def __len__(self) -> int:
        return len(self.cells)

    def cell(self, index: int) -> Cell:
        """Identify a crop as the run did."""
        return self.cells[int(index)]

    def batches(self, wanted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Divide crops into batches of a size."""
        return _equal_batches(wanted)

    def fingerprint(self) -> str:
        """Return "": the run says which cells they are."""
        return ""

    def read(self, wanted: Wanted) -> Iterator[NDArray | ImageError]:
        """Read the files of crops, one by one."""
        load_torchvision()
        for index in wanted:
            try:
                yield self._reader.read(self.cells[int(index)])
            except ImageError as error:
                yield error


def _pixels(data: Any, place: Any) -> NDArray | ImageError:
    """Read a part of an array; an error where that fails, for whatever reason: it may be read just now."""
    try:
        return np.asarray(data[place])
    except Exception as error:  # noqa: BLE001 - dask calls whatever made the array
        return ImageError(f"the pixels cannot be read ({type(error).__name__}: {error})")


def _fingerprint(data: Any) -> str:
    """Digest of an array: its shape, and its pixels or some of them."""
    shape, dtype = tuple(int(side) for side in data.shape), np.dtype(data.dtype)
    digest = blake2b(repr((shape, str(dtype))).encode(), digest_size=8)
    whole = math.prod(shape) * dtype.itemsize <= _WHOLE
    for part in [0.0] if whole else np.linspace(0, 1, _SAMPLES):
        widths = shape if whole else [min(side, _SAMPLE) for side in shape]
        starts = (round(part * (side - width)) for side, width in zip(shape, widths, strict=True))
        place = tuple(slice(at, at + width) for at, width in zip(starts, widths, strict=True))
        pixels = _pixels(data, place)
        if not isinstance(pixels, ImageError):
            digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _without_colours(data: Any, colours: int | None) -> list[int]:
    """Sides of an array but for its axis of colours."""
    return [int(side) for axis, side in enumerate(data.shape) if axis != colours]


def _inside(box: Box, rows: int, columns: int) -> list[slice]:
    """Rows and columns of a box that an image has."""
    return [
        slice(max(box.y, 0), min(box.y + box.height, rows)),
        slice(max(box.x, 0), min(box.x + box.width, columns)),
    ]


def _equal_batches(wanted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
