"""Cells in zarr stores: arrays of crops of any origin, and stores that were packed from other inputs."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from wbc_batch.classifier.preprocessing import CanonicalCrop, Preprocessing
from wbc_batch.errors import ImageError, InputError, UnreachableError, in_a_line
from wbc_batch.paths import exists, refuse_passing, refuse_unanswered
from wbc_batch.sources import packed
from wbc_batch.sources.blocks import Blocks
from wbc_batch.sources.cells import Cell, Place
from wbc_batch.sources.fetching import Fetch
from wbc_batch.sources.groups import Grouping
from wbc_batch.sources.inputs import Input
from wbc_batch.sources.kinds import ZARR_FILES, is_url
from wbc_batch.sources.size_limits import refuse_large

__all__ = ["ZarrCrops", "list_array", "refuse_silent"]

_COLOURS = (1, 3, 4)
_TYPES = ("uint8", "uint16", "bool")
# Identities that are held in memory at once while a packed store is listed.
_ROWS = 16_384


def list_array(item: Input, grouping: Grouping) -> Iterator[Cell]:
    """List the crops of a zarr array, or the cells of a packed store as they were before.

    Raises
    ------
    InputError
        If the store cannot be opened, or is no array of crops.
    """
    try:
        crops = ZarrCrops(item.source)
    except ImageError as error:
        raise InputError(f"{item.given}: {error}") from error
    if not len(crops):
        raise InputError(f"{item.given} holds no crops; its shape is {crops.array.shape}")
    known = [] if crops.group is None else packed.GROUPING
    if grouping.column and grouping.column not in known:
        raise InputError(
            f"--group-by {grouping.column}: {item.given} has no column of this name; "
            f"it has {', '.join(known) or 'none'}"
        )
    if crops.group is None:
        for index in range(len(crops)):
            place = Place(item.source, index, index // crops.block)
            yield Cell(item.source, "", index, item.name, place=place)
        return
    group = grouping.column or (packed.PARENT if grouping.rule == packed.PARENT else "group")
    if group == packed.PARENT and group not in crops.group:
        raise InputError(
            f"{item.given} was packed by an earlier version, which did not record the folders of "
            "the cells for --group-by parent; pack the cells again"
        )
    needed = [name for name in packed.COLUMNS if name != packed.PARENT or name == group]
    for first in range(0, len(crops), _ROWS):
        try:
            columns = crops.columns(needed, first, min(first + _ROWS, len(crops)))
        except ImageError as error:
            raise InputError(f"{item.given}: {error}") from error
        for number, row in enumerate(_rows(columns)):
            position = first + number
            place = Place(item.source, position, position // crops.block)
            yield packed.cell_of(row, group, place)


class ZarrCrops:
    """The crops of a zarr store; any number of threads may fetch them.

    Attributes
    ----------
    array : zarr.Array
        Of the crops.
    group : zarr.Group or None
        The packed store that the array is part of.
    block : int
        How many crops are read at once.
    """

    def __init__(self, store: str) -> None:
        node = _open(store)
        self.group: Any = node if hasattr(node, "arrays") else None
        if self.group is not None:
            if packed.MARK not in self.group.attrs:
                names = sorted(name for name, _ in self.group.arrays()) or ["(none)"]
                raise ImageError(
                    "this zarr store is a group; give one of its arrays, such as "
                    f"{store}/{names[0]}"
                )
            _refuse_later(self.group.attrs[packed.MARK])
            with _or_damaged(
                self.group, "the store's pixels are missing or damaged; pack them again"
            ):
                node = self.group[packed.CROPS]
        self.array = node
        self._channels_first = _channels_first(node)
        _refuse_large_crops(node, self._channels_first)
        self._blocks = Blocks(node)
        self.block = self._blocks.size

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def columns(self, names: Iterable[str], first: int, last: int) -> dict[str, NDArray]:
        """Read what a packed store says of some of its crops.

        Raises
        ------
        ImageError
            If that is missing or damaged.
        """
        with _or_damaged(
            self.group,
            f"the store's description of crops {first} to {last - 1} is missing or damaged; pack "
            "them again",
        ):
            return {name: self.group[name][first:last] for name in names}

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give a way to the pixels of each cell."""
        for cell in cells:
            position = cell.place.position if cell.place else cell.index or 0
            if position >= len(self):
                yield partial(_gone, len(self))
                continue
            yield partial(self._crop, position, self._blocks.get(position))

    def prepared(self, preprocessing: Preprocessing) -> "_PreparedCrops | None":
        """Give the way to the canonical crops, if the store holds them as `preprocessing` makes them."""
        if self.group is None:
            return None
        held = self.group.attrs.get(packed.PREPARED)
        return _PreparedCrops(self) if held == packed.preparation(preprocessing) else None

    def _crop(self, position: int, get: Callable[[], NDArray]) -> NDArray:
        height, width = self.true_size(position)
        crop = get()
        if self._channels_first:
            crop = np.moveaxis(crop, 0, -1)
        # Older stores may keep the other order of bytes.
        return crop[:height, :width].astype(crop.dtype.newbyteorder("="), copy=False)

    def true_size(self, position: int) -> tuple[int | None, int | None]:
        """Height and width of a crop, pixels; None where it fills its row of the array.

        Raises
        ------
        ImageError
            If the crop could not be read when it was packed, saying why.
        """
        if self.group is None:
            return None, None
        height, width = (int(sizes[position]) for sizes in self._true_sizes)
        if not height:
            raise ImageError(packed.restored(self.group["error"][position : position + 1][0]))
        return height, width

    @cached_property
    def _true_sizes(self) -> tuple[NDArray, NDArray]:
        with _or_damaged(self.group, "the sizes of the crops in the store are damaged"):
            return self.group["crop_height"][:], self.group["crop_width"][:]


class _PreparedCrops:
    """The canonical crops that a packed store holds beside the pictures."""

    def __init__(self, crops: ZarrCrops) -> None:
        self._crops = crops
        self._blocks = Blocks(crops.group[packed.PREPARED])

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Callable[[], CanonicalCrop]]:
        for cell in cells:
            position = cell.place.position if cell.place else 0
            if position >= len(self._crops):
                yield partial(_gone, len(self._crops))
            else:
                yield partial(self._crop, position, self._blocks.get(position))

    def _crop(self, position: int, get: Callable[[], NDArray]) -> CanonicalCrop:
        self._crops.true_size(position)  # says why, where there is no crop
        return CanonicalCrop(get(), float(self._sizes[position]))

    @cached_property
    def _sizes(self) -> NDArray[np.float32]:
        with _or_damaged(self._crops.group, "the sizes of the nuclei in the store are damaged"):
            sizes: NDArray[np.float32] = self._crops.group[packed.SIZES][:]
            return sizes


@contextmanager
def _or_damaged(group: Any, sentence: str) -> Iterator[None]:
    """Say what it means that something in a store cannot be read, unless it does not come at all."""
    try:
        yield
    except Exception as error:  # codecs raise anything
        refuse_passing(group.store_path, error)
        raise ImageError(sentence) from error


def _gone(count: int) -> Any:
    raise ImageError(f"the zarr store now holds only {count} crops")


def _refuse_later(version: Any) -> None:
    """Refuse a packed store of a layout that is not known yet: it could be misread."""
    if version != packed.VERSION:
        raise ImageError(
            f"this store was packed by a later version of wbc-napari (its layout is {version!r}; this "
            f"version reads {packed.VERSION}); update wbc-napari, or pack the cells again with this version"
        )


def _rows(columns: Mapping[str, NDArray]) -> Iterator[packed.Row]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _channels_first(array: Any) -> bool:
    """Tell (N, C, H, W) from (N, H, W, C) and (N, H, W).

    Raises
    ------
    ImageError
        If the array is none of these, or holds no values of an image.
    """
    shape = array.shape
    if str(array.dtype.newbyteorder("=")) not in _TYPES:
        raise ImageError(f"this zarr array holds {array.dtype}; crops must be uint8 or uint16")
    if len(shape) == 3 and shape[2] in _COLOURS:  # no crop is so narrow
        raise ImageError(
            f"this zarr array has the shape {shape} and is one image; an array of crops has (N, H, W, 3)"
        )
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in _COLOURS):
        return False
    if len(shape) == 4 and shape[1] in _COLOURS:
        return True
    raise ImageError(
        f"this zarr array has the shape {shape}; an array of crops has (N, H, W, 3) or (N, 3, H, W)"
    )


def _refuse_large_crops(array: Any, channels_first: bool) -> None:
    _, *sides = array.shape
    if channels_first:
        sides.append(sides.pop(0))
    height, width, *channels = sides
    refuse_large(width, height, prod(channels) * array.dtype.itemsize)


def _open(store: str) -> Any:
    import zarr

    from wbc_batch.sources.remote import open_url

    if not is_url(store):
        refuse_unanswered(store)
    if not (is_url(store) or exists(store)):
        raise ImageError("the zarr store is gone")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs and types that no standard names yet
        try:
            if not is_url(store):
                return zarr.open(store, mode="r")
            if not _answers(store):
                raise FileNotFoundError("it does not exist")
            return zarr.open(open_url(store), mode="r")
        except Exception as error:  # stores, file systems and codecs raise anything
            refuse_passing(store, error)
            failure = UnreachableError if is_url(store) else ImageError
            raise failure(f"this zarr store cannot be opened ({in_a_line(error)})") from error


def refuse_silent(url: str) -> None:
    """Make sure that the store that a URL names is there.

    Raises
    ------
    UnreachableError
        If it is not there, or does not answer.
    """
    try:
        there = _answers(url)
    except Exception as error:  # file systems raise anything
        raise UnreachableError(f"{url} does not answer: {in_a_line(error)}") from error
    if not there:
        raise UnreachableError(f"the store {url} no longer exists")


def _answers(url: str) -> bool:
    """Ask for one file after the other: zarr asks for all, and leaves what fails late to Python's end."""
    files, path = url_to_fs(url)
    for name in ZARR_FILES:
        try:
            files.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            continue
        return True
    return False
