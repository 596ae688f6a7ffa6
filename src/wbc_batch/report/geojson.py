"""Cells as GeoJSON that QuPath opens: one file per image, one detection per cell."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pandas as pd

from wbc_batch.files import removed, unfinished, writing
from wbc_batch.schema import BOX_COLUMNS, CLASS_COLORS, ERROR_COLOR
from wbc_batch.sources.cells import path_of

__all__ = ["GeoJsonFolder", "feature"]

_HEAD, _BETWEEN, _TAIL = '{"type": "FeatureCollection", "features": [\n', ",\n", "\n]}\n"
_NAME_BYTES = 100
# Names of devices on Windows, whatever follows the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)
_MEASURED = ("confidence", "margin", "novelty")


def feature(cell: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Describe a cell as QuPath does a detection.

    Parameters
    ----------
    cell : mapping
        A row of ``cells.csv`` with the columns `BOX_COLUMNS`.

    Returns
    -------
    dict
        A GeoJSON feature (RFC 7946, but for its coordinates, which are pixels, as QuPath wants them). The
        class is the reviewer's where there is one.
    """
    x, y, width, height = (float(cell[name]) for name in BOX_COLUMNS)
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    reviewed = cell.get("reviewed_label")
    label = reviewed if isinstance(reviewed, str) and reviewed else cell["label"]
    colour = CLASS_COLORS.get(label, ERROR_COLOR)
    name = label if isinstance(label, str) else "error"
    measured = {key: cell[key] for key in cell if key in _MEASURED or str(key).startswith("prob_")}
    return {
        "type": "Feature",
        # QuPath takes UUIDs alone.
        "id": str(uuid5(NAMESPACE_URL, f"wbc:{cell['cell_id']}")),
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {
            "objectType": "detection",
            "name": str(cell["cell_id"]),
            "classification": {
                "name": name,
                "color": [int(colour[at : at + 2], 16) for at in (1, 3, 5)],
            },
            "measurements": {
                str(key): round(float(value), 6)
                for key, value in measured.items()
                if not pd.isna(value)
            },
        },
    }


class GeoJsonFolder:
    """Writes a file per image as cells stream by; the folder appears when `finish` is called.

    Parameters
    ----------
    folder : Path
        Replaced when all is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = unfinished(folder)
        with writing(folder):
            self.discard()
        self._made = False
        self._stems: dict[tuple[str, str], str] = {}
        self._wanted: Counter[str] = Counter()

    def add(self, cells: pd.DataFrame) -> None:
        """Take some more cells in; those without a place in an image are left out."""
        placed = cells[cells[list(BOX_COLUMNS)].notna().all(axis=1)]
        for (source, member), part in placed.groupby(
            ["source", "member"], sort=False, dropna=False
        ):
            image = (str(source), member if isinstance(member, str) else "")
            begun = image in self._stems
            if not begun:
                self._stems[image] = self._stem(path_of(*image))
            stem = self._stems[image]
            features = [json.dumps(feature(row)) for row in part.to_dict("records")]
            self._append(stem, (_BETWEEN if begun else _HEAD) + _BETWEEN.join(features))

    def finish(self) -> None:
        """Close the files and give the folder its name."""
        for stem in self._stems.values():
            self._append(stem, _TAIL)
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._stems:
            with writing(self._folder):
                self._begun.replace(self._folder)

    def discard(self) -> None:
        """Remove what `finish` did not name."""
        removed(self._begun)

    def _append(self, stem: str, text: str) -> None:
        name = f"{stem}.geojson"
        with writing(self._folder / name):
            if not self._made:
                self._begun.mkdir()
                self._made = True
            with (self._begun / name).open("a", encoding="utf-8") as file:
                file.write(text)

    def _stem(self, place: str) -> str:
        """Return a name that any file system takes, another one for each image."""
        stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(place).name)
        # File systems count bytes, not letters; a letter that is cut in two is left out.
        stem = stem.encode()[:_NAME_BYTES].decode(errors="ignore").lstrip(".") or "image"
        stem = f"image-{stem}" if _DEVICE.match(stem) else stem
        unique = stem
        while unique.casefold() in self._wanted:
            self._wanted[stem.casefold()] += 1
            unique = f"{stem}-{self._wanted[stem.casefold()]}"
        self._wanted[unique.casefold()] = 1
        return unique
