"""Cells in TIFF and OME-TIFF stacks: each page, or each triple of colour planes, is one crop."""

import logging
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError, InputError, UnreachableError
from wbc_batch.paths import refuse_passing
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.fetching import Fetch
from wbc_batch.sources.images import page_colours, page_pixels
from wbc_batch.sources.inputs import Input
from wbc_batch.sources.size_limits import refuse_page

__all__ = ["TiffStack", "is_one_crop", "list_stack"]

_COLOURS = 3
_LOST = "the stack is cut off here, and the pages after this point are lost; copy the file again"


@dataclass(frozen=True)
class _Crop:
    """Where one crop is: a series of the file, and the planes of it that are its colours."""

    series: int
    planes: tuple[int, ...]


def is_one_crop(path: Path) -> bool:
    """Tell a TIFF file that is a crop itself, or too damaged to say: its row will."""
    try:
        stack = TiffStack(path)
    except UnreachableError:
        raise
    except ImageError:
        return True
    return len(stack) == 1 and not stack.broken


def list_stack(item: Input) -> Iterator[Cell]:
    """List the crops of a TIFF file, reading its directories only.

    Where the chain of pages breaks off, a last cell says so.

    Raises
    ------
    InputError
        If the file has channels that are no colours.
    """
    stack = TiffStack(Path(item.given))
    if stack.channels:
        raise InputError(
            f"{item.given} has {stack.channels} channels for each crop; a crop of a stained cell "
            "has one (gray) or three (red, green, blue)"
        )
    for index in range(len(stack)):
        yield Cell(item.source, "", index, item.name)
    if stack.broken:
        yield Cell(item.source, "", len(stack), item.name)


class TiffStack:
    """The crops of a TIFF file; any number of threads may fetch them."""

    def __init__(self, file: Path | BinaryIO) -> None:
        import tifffile

        # What it thinks of damaged files ends in the rows, not on the terminal.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        try:
            self._tiff = tifffile.TiffFile(file)
            weakref.finalize(self, self._tiff.close)
            self._series = list(self._tiff.series)
            self._crops, self.channels = _crops(self._series)
            self.broken = _breaks_off(self._tiff)
        except Exception as error:  # it raises anything, and all of it means this
            refuse_passing(file, error)
            raise ImageError("the TIFF data are truncated or damaged") from error
        # Reading moves the file; decoding does not.
        self._turn = threading.RLock()

    def __len__(self) -> int:
        return len(self._crops)

    @property
    def pages(self) -> int:
        """How many pages the file has, whatever they are to the crops."""
        return len(self._tiff.pages)

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give a way to the pixels of each cell."""
        for cell in cells:
            yield partial(self.read, cell.index or 0)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a crop.

        Raises
        ------
        ImageError
            If it is too large.
        """
        crop = self._crops[index]
        page = self._series[crop.series].keyframe
        refuse_page(page, len(crop.planes))
        return page.imagelength, page.imagewidth

    def read(self, index: int) -> NDArray:
        """Read a crop: grey, shape (H, W), or colours, shape (H, W, C).

        Raises
        ------
        ImageError
            If it is not there, damaged, or too large.
        """
        if index >= len(self):
            raise ImageError(_LOST if self.broken else "the page is no longer in the stack")
        crop = self._crops[index]
        series = self._series[crop.series]
        refuse_page(series.keyframe, len(crop.planes))
        try:
            planes = [self._plane(series, plane) for plane in crop.planes]
        except ImageError:
            raise
        except Exception as error:
            refuse_passing(self._tiff.filename, error)
            raise ImageError("this page of the stack is truncated or damaged") from error
        return planes[0] if len(planes) == 1 else np.dstack(planes)

    def _plane(self, series: Any, number: int) -> NDArray:
        if _lies_in_one_piece(series):
            return page_colours(series.keyframe, self._contiguous(series, number))
        with self._turn:
            page = series[number]
        if page is None:
            raise ImageError("this page is missing from the stack")
        return page_colours(page, page_pixels(page, self._turn))

    def _contiguous(self, series: Any, number: int) -> NDArray:
        """Read a plane of a series that is one array in the file, with or without directories."""
        shape = series.keyframe.shape
        dtype = series.dtype.newbyteorder(self._tiff.byteorder)
        size = prod(shape) * dtype.itemsize
        file = self._tiff.filehandle
        with self._turn:
            file.seek(series.dataoffset + number * size)
            data = file.read(size)
        if len(data) < size:
            raise ImageError("the file ends inside this page; copy it again")
        return np.frombuffer(data, dtype).reshape(shape).astype(series.dtype, copy=False)


def _lies_in_one_piece(series: Any) -> bool:
    return series.dataoffset is not None and not series.is_multifile


def _crops(series: list[Any]) -> tuple[list[_Crop], int]:
    """List the crops of all series; and how many channels each has, if those are no colours, else 0."""
    crops: list[_Crop] = []
    for number, one in enumerate(series):
        planes, channels = _planes(one)
        if channels:
            return [], channels
        crops += [_Crop(number, tuple(map(int, some))) for some in planes]
    if any(one.kind != "generic" for one in series):
        return crops, 0
    # The pages of a plain file are sorted into series by size: put them back into their order, and
    # leave out smaller copies of others.
    pages = [series[crop.series][crop.planes[0]] for crop in crops]
    order = [
        i for i, page in enumerate(pages) if isinstance(page.index, int) and not page.is_reduced
    ]
    return [crops[i] for i in sorted(order, key=lambda i: pages[i].index)], 0


def _planes(series: Any) -> tuple[NDArray[np.intp], int]:
    """Planes of each crop of a series, shape (crops, colours); and the channels that are no colours."""
    page = series.keyframe
    leading = series.shape[: series.ndim - len(page.shape)]
    axes = series.axes[: len(leading)]
    planes = np.arange(prod(leading)).reshape(leading)
    if "C" not in axes or "S" in page.axes:
        return planes.reshape(-1, 1), 0
    colours = leading[axes.index("C")]
    if colours == _COLOURS:
        return np.moveaxis(planes, axes.index("C"), -1).reshape(-1, colours), 0
    # A single axis that is called channels, for want of a name, is that of the crops.
    return planes.reshape(-1, 1), 0 if len(axes) == 1 else colours


def _breaks_off(tiff: Any) -> bool:
    """Tell whether the chain of pages ends in a page that is not there."""
    at = tiff.pages.next_page_offset
    if not at:
        return False
    tiff.filehandle.seek(at)
    size = tiff.tiff.offsetsize
    data = tiff.filehandle.read(size)
    return len(data) < size or any(data)
