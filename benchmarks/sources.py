"""How fast each kind of source is read: python benchmarks/sources.py FOLDER --scratch FOLDER.

Takes the cells of a folder tree that are as large as most of them, writes the same cells as a ZIP archive, a
TAR archive, TIFF stacks, a table and packed zarr stores, then reads and decodes all of them round after
round, and nothing else. Prints medians of cells per second and of the processor's time per cell, which says
more where other programs run, and the size of each source. All files are in the file system's memory.
"""

import argparse
import csv
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile
import torch

from wbc_batch.engine.machine import cores
from wbc_batch.errors import ImageError
from wbc_batch.sources import Cell, attempt_read, list_cells, read_image, readers
from wbc_batch.sources.ahead import run_ahead
from wbc_batch.sources.pack import pack
from wbc_batch.sources.rates import reading_rate

AHEAD = 64  # cells


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scratch", type=Path, help="Where the sources are written for a while.")
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        names, images = choose(options.folder, options.cells)
        sources = write(options.folder.absolute(), names, images, Path(scratch))
        del images
        cells = {kind: list(list_cells([path])) for kind, path in sources.items()}
        rates = measure(cells, options.rounds, options.threads)
        report(sources, rates, len(names), options)


def choose(folder: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Names and pictures, (N, H, W, 3), of the first cells of the most frequent size."""
    found: list[tuple[str, np.ndarray]] = []
    for cell in list_cells([folder]):
        try:
            found.append((cell.member, read_image(cell)))
        except ImageError:
            continue
        if len(found) == 2 * count:
            break
    ((shape, _),) = Counter(image.shape for _, image in found).most_common(1)
    chosen = [(name, image) for name, image in found if image.shape == shape][:count]
    return [name for name, _ in chosen], np.stack([image for _, image in chosen])


def write(folder: Path, names: list[str], images: np.ndarray, scratch: Path) -> dict[str, Path]:
    """Write the same cells as every kind of source."""
    files = scratch / "folder"
    with (
        zipfile.ZipFile(scratch / "cells.zip", "w") as archive,
        tarfile.open(scratch / "cells.tar", "w") as tape,
        (scratch / "cells.csv").open("w", newline="") as table,
    ):
        rows = csv.writer(table)
        rows.writerow(["path"])
        for name in names:
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_bytes((folder / name).read_bytes())
            archive.write(files / name, name)
            tape.add(files / name, name)
            rows.writerow([files / name])
    tifffile.imwrite(scratch / "plain.tif", images, photometric="rgb", bigtiff=True)
    tifffile.imwrite(
        scratch / "deflate.tif", images, photometric="rgb", bigtiff=True, compression="zlib"
    )
    pack([files], scratch / "plain.zarr")
    pack([files], scratch / "zstd.zarr", compress=True)
    return {
        "folder": files,
        "ZIP archive": scratch / "cells.zip",
        "TAR archive": scratch / "cells.tar",
        "table of paths": scratch / "cells.csv",
        "TIFF stack": scratch / "plain.tif",
        "TIFF stack, Deflate": scratch / "deflate.tif",
        "packed zarr": scratch / "plain.zarr",
        "packed zarr, --compress": scratch / "zstd.zarr",
    }


def measure(
    cells: dict[str, list[Cell]], rounds: int, threads: int
) -> dict[str, list[tuple[float, float]]]:
    """Cells per second, and the processor's milliseconds per cell; of each round."""
    rates: dict[str, list[tuple[float, float]]] = {kind: [] for kind in cells}
    for _ in range(rounds):
        for kind, some in cells.items():  # in turn, so that no kind has the quieter machine
            begun = time.process_time()
            rate = reading_rate(run_ahead(attempt_read, readers(some), threads, AHEAD))
            rates[kind].append((rate, 1000 * (time.process_time() - begun) / len(some)))
    return rates


def report(
    sources: dict[str, Path],
    rates: dict[str, list[tuple[float, float]]],
    count: int,
    options: argparse.Namespace,
) -> None:
    print(f"{count} cells, {options.threads} threads, medians of {options.rounds} rounds")
    print(f"{'':24}{'cells/s':>10}{'CPU ms/cell':>14}{'MB':>8}")
    for kind, rounds in rates.items():
        rate, cost = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{kind:24}{rate:>10.0f}{cost:>14.2f}{size(sources[kind]) / 1e6:>8.0f}")


def size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
