"""Inputs of the benchmarks: few images, many cells."""

import os
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from wbc_batch.sources.folders import is_hidden
from wbc_batch.sources.images import crop_size
from wbc_batch.synthetic import draw_cells

CELLS_PER_FOLDER = 1000
TINY = 32  # pixels
_DRAWN = 200
_BAR = 1024  # crops in a chunk of a zarr array


def images(folder: Path | None, scratch: Path) -> list[Path]:
    """Image files of a folder, or drawn cells as JPEGs of 360 x 360 pixels."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return [path for path in found if not is_hidden(path.name)]
    drawn = scratch / "drawn"
    drawn.mkdir(parents=True)
    for number, image in enumerate(draw_cells(_DRAWN, seed=0)[0]):
        Image.fromarray(image).save(drawn / f"{number:04d}.jpg", quality=90)
    return sorted(drawn.iterdir())


def of_one_size(files: list[Path]) -> tuple[list[Path], tuple[int, int]]:
    """Keep the images of the most frequent size; that size, height and width."""
    sizes = {file: crop_size(file.read_bytes()) for file in files}
    ((most, _),) = Counter(sizes.values()).most_common(1)
    return [file for file in files if sizes[file] == most], most


def linked_tree(originals: list[Path], cells: int, tree: Path) -> Path:
    """Make a folder tree of many files out of few: hard links, symbolic ones across disks."""
    for number, original in enumerate(islice(cycle(originals), cells)):
        folder = tree / f"slide-{number // CELLS_PER_FOLDER:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / f"{number % CELLS_PER_FOLDER:03d}{original.suffix}"
        try:
            os.link(original, link)
        except OSError:
            link.symlink_to(original.resolve())
    return tree


def tiny_crops(cells: int, store: Path) -> Path:
    """Write a sharded zarr array of drawn cells, shrunk to 32 x 32 pixels."""
    import zarr

    few = [
        np.asarray(Image.fromarray(image).resize((TINY, TINY)))
        for image in draw_cells(_DRAWN, seed=0)[0]
    ]
    block = np.stack(list(islice(cycle(few), 16 * _BAR)))
    array = zarr.create_array(
        store,
        shape=(cells, TINY, TINY, 3),
        chunks=(_BAR, TINY, TINY, 3),
        shards=(len(block), TINY, TINY, 3),
        dtype="uint8",
    )
    for begin in range(0, cells, len(block)):
        array[begin : begin + len(block)] = block[: min(len(block), cells - begin)]
    return store
