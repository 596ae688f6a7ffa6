"""The journal of a review: every change, appended as it is made. Autosave and audit log in one.

A file of JSON lines: who, when, which cell, old and new label, SHA-256 of the model. Read again, it gives the
review as it was, also after a crash: a last line that was cut off is passed over.
"""

import errno
import json
import os
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from wbc_batch.errors import RunError, reason
from wbc_batch.files import try_writing
from wbc_batch.records import parse_json
from wbc_batch.schema import CELLS_FILE, LABELS
from wbc_napari.review import Change

__all__ = ["Journal", "journal_path"]

#: Suffix of the journal beside the file or folder that is reviewed.
SUFFIX = ".review.jsonl"


class Journal:
    """An open journal.

    Parameters
    ----------
    path : Path
    model : str
        SHA-256 of the model whose labels are reviewed.
    pixels : str
        Fingerprint of the image, see `wbc_napari.crops.Crops`: what was said of other pixels of the same name
        is not read.
    """

    def __init__(self, path: Path, model: str, pixels: str = "") -> None:
        self.path, self.model, self.pixels = path, model, pixels

    def append(
        self, changes: Sequence[Change], action: str = "label", seed: int | None = None
    ) -> None:
        """Append changes; what was appended outlives a crash of napari.

        Parameters
        ----------
        changes : sequence of Change
        action : str
            What the reader did.
        seed : int, optional
            Of the order of the cells, where the reader was blind to the model.

        Raises
        ------
        RunError
            If the file cannot be written.
        """
        lines = [
            json.dumps(
                {
                    "who": change.by,
                    "when": change.at,
                    "cell_id": change.cell_id,
                    "old": change.old,
                    "new": change.new,
                    "action": action,
                    "model": self.model,
                    "pixels": self.pixels,
                    "blind_seed": seed,
                },
                ensure_ascii=False,
            )
            for change in changes
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell():  # a line that a crash cut off shall spoil itself alone
                    file.seek(-1, os.SEEK_END)
                    lines = lines if file.read(1) == b"\n" else ["", *lines]
                file.write("".join(line + "\n" for line in lines).encode())
        except OSError as error:
            raise RunError(
                f"{self.path}: the review cannot be saved there ({reason(error)}); "
                "save the corrections elsewhere before you close napari."
            ) from error

    def read(self, cell_ids: Sequence[str]) -> list[Change]:
        """Read the changes of known cells, in their order; what is damaged is passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = {cell_id: row for row, cell_id in enumerate(cell_ids) if cell_id}
        changes = []
        for line in text.splitlines():
            entry = _entry(line)
            if entry is None or entry.get("pixels", self.pixels) != self.pixels:
                continue
            if entry["cell_id"] in rows:
                place = rows[entry["cell_id"]]
                said = (entry[key] for key in ("cell_id", "old", "new", "who", "when"))
                changes.append(Change(place, *said))
        return changes


def _entry(line: str) -> dict[str, str] | None:
    try:
        entry = parse_json(line)
        whole = all(isinstance(entry[key], str) for key in ("who", "when", "cell_id", "old", "new"))
    except (ValueError, KeyError, TypeError):
        return None
    known = whole and entry["who"].strip() and entry["new"] in ("", *LABELS)
    return entry if known else None


def journal_path(source: str, name: str, pixels: str) -> Path:
    """Where the journal of a layer or run lies: beside its file, else in the user's data folder.

    A run has one, whether its folder was opened or the table in it.

    Parameters
    ----------
    source : str
        File or folder that is reviewed, or a name where there is none.
    name : str
        Of the layer, for people to read; the layer may get another one.
    pixels : str
        Fingerprint of the image: it tells layers apart that came from no file.
    """
    place = Path(source)
    if place.name == CELLS_FILE and _is_run(place.parent):
        place = place.parent
    if source and place.is_absolute() and place.exists():
        beside = (
            place / f"napari{SUFFIX}" if _is_run(place) else place.with_name(place.name + SUFFIX)
        )
        if _writable(beside.parent):
            return beside
    from platformdirs import user_data_path

    folder = user_data_path("wbc-napari") / "reviews"
    digest = pixels or blake2b(source.encode(), digest_size=8).hexdigest()
    readable = re.sub(r"\W+", "-", name)[:40].strip("-") or "layer"
    there = sorted(folder.glob(f"*-{digest}{SUFFIX}"))
    return there[0] if there else folder / f"{readable}-{digest}{SUFFIX}"


def _is_run(place: Path) -> bool:
    return place.is_dir() and (place / CELLS_FILE).is_file()


def _writable(folder: Path) -> bool:
    try:  # os.access says yes to any folder on Windows
        try_writing(folder)
    except OSError as error:
        return not isinstance(error, PermissionError) and error.errno != errno.EROFS
    return True
