"""One zarr array of crops, read in blocks of whole chunks."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from numpy.typing import NDArray

from wbc_batch.errors import ImageError, in_a_line
from wbc_batch.paths import refuse_passing
from wbc_batch.sources.fetching import LoadedAhead

__all__ = ["Blocks"]

# Crops are read some megabytes at a time: each call of zarr costs time.
_BLOCK_BYTES = 8 * 2**20
_BLANK = ImageError(
    "the zarr store holds nothing but its fill value here; a chunk is missing or was never written"
)


class Blocks:
    """The rows of a zarr array; any number of threads may ask for them.

    Parameters
    ----------
    array : zarr.Array
        A crop in each row.

    Attributes
    ----------
    size : int
        How many crops are read at once.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        chunk = max(array.chunks[0], 1)  # an empty array has chunks of nothing
        per_block = max(_BLOCK_BYTES // max(prod(array.shape[1:]) * array.dtype.itemsize, 1), 1)
        self.size: int = chunk * max(per_block // chunk, 1)
        self._loaded: LoadedAhead[int, list[NDArray | ImageError]] = LoadedAhead(self._load)

    def get(self, position: int) -> Callable[[], NDArray]:
        """Give a way to one crop; in the order in which crops will be needed."""
        return partial(_crop, self._loaded.get(position // self.size), position % self.size)

    def _load(self, number: int) -> list[NDArray | ImageError]:
        """Read a block; if that fails, chunk by chunk, so that one that is damaged spoils no other."""
        first = number * self.size
        last = min(first + self.size, int(self._array.shape[0]))
        try:
            return self._checked(self._array[first:last])
        except Exception as error:  # noqa: BLE001 - codecs raise anything
            refuse_passing(self._array.store_path, error)
            return self._load_chunks(first, last)

    def _load_chunks(self, first: int, last: int) -> list[NDArray | ImageError]:
        crops: list[NDArray | ImageError] = []
        step = self._array.chunks[0]
        for start in range(first, last, step):
            end = min(start + step, last)
            try:
                crops += self._checked(self._array[start:end])
            except Exception as error:  # noqa: BLE001
                refuse_passing(self._array.store_path, error)
                damage = ImageError(f"its chunk in the zarr store is damaged ({in_a_line(error)})")
                crops += [damage] * (end - start)
        return crops

    def _checked(self, crops: NDArray) -> list[NDArray | ImageError]:
        return [_BLANK if self._is_blank(crop) else crop for crop in crops]

    def _is_blank(self, crop: NDArray) -> bool:
        """Tell a crop that was never stored: zarr fills in what is missing, without a word."""
        fill = self._array.fill_value
        if fill is None:  # zarr 2 leaves it open; what is missing is read as zero
            fill = 0
        return crop.flat[0] == fill and bool((crop == fill).all())


def _crop(block: Callable[[], list[NDArray | ImageError]], number: int) -> NDArray:
    crop = block()[number]
    if isinstance(crop, ImageError):
        raise crop
    return crop
