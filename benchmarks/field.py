"""Measure the finder of leukocytes in fields of view against annotated boxes.

    python benchmarks/field.py ../shared/data/fields

The folder holds ``images`` and, under the same names, ``annotations`` in Pascal VOC XML with objects
named WBC (as BCCD has them).
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.field import find_cells
from wbc_batch.classifier.images import as_rgb
from wbc_batch.sources import decode, read_file


def fields(folder: Path) -> Iterator[tuple[str, NDArray[np.uint8], NDArray]]:
    """Yield name, image and boxes (x, y, width, height) of each annotated field."""
    annotations = sorted((folder / "annotations").glob("*.xml"))
    if not annotations:
        sys.exit(f"{folder} holds no annotations/*.xml; name a folder with annotations and images")
    for path in annotations:
        image = next((folder / "images").glob(f"{path.stem}.*"), None)
        if image is None:
            sys.exit(f"{path} has no image of its name in {folder / 'images'}")
        boxes = []
        for item in ElementTree.parse(path).getroot().iter("object"):
            if item.findtext("name") == "WBC":
                left, top, right, bottom = (
                    int(item.findtext(f"bndbox/{side}", ""))
                    for side in ("xmin", "ymin", "xmax", "ymax")
                )
                boxes.append((left, top, right - left, bottom - top))
        yield path.stem, as_rgb(decode(read_file(image))), np.array(boxes).reshape(-1, 4)


def overlaps(found: NDArray, true: NDArray) -> NDArray:
    """Intersection over union of every found box with every true one."""
    a, b = found[:, np.newaxis].astype(float), true[np.newaxis].astype(float)
    start = np.maximum(a[..., :2], b[..., :2])
    stop = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.prod(np.clip(stop - start, 0, None), axis=-1)
    return shared / (np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - shared)


def matched(found: NDArray, true: NDArray, least: float = 0.5) -> int:
    """How many true boxes are met, each by a box of its own."""
    iou = overlaps(found, true)
    hits = 0
    while iou.size and iou.max() >= least:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        iou[row], iou[:, column] = 0, 0
        hits += 1
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    cells = hits = false = 0
    seconds, count = 0.0, 0
    for name, image, true in fields(options.folder):
        began = time.perf_counter()
        found = find_cells(image)
        seconds += time.perf_counter() - began
        met = matched(found, true)
        if met < len(true) or met < len(found):
            print(f"{name}: {len(true)} annotated, {len(found)} found, {met} agree")
        cells, hits, false, count = (
            cells + len(true),
            hits + met,
            false + len(found) - met,
            count + 1,
        )
    print(
        f"{count} fields, {cells} cells: recall {hits / max(cells, 1):.3f} at IoU 0.5, "
        f"{false / count:.2f} false boxes per field, {1000 * seconds / count:.0f} ms per field"
    )


if __name__ == "__main__":
    main()
