"""What ``run.json`` says about a run, as the page shows it.

It is read tolerantly: a page can be made from a run of another version, or while the run goes on.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wbc_batch.names import command_text
from wbc_batch.paths import exists, is_folder, resolved
from wbc_batch.records import peek_json
from wbc_batch.report.confusion import Confusion, confusion_from_record
from wbc_batch.report.gallery import Canonical
from wbc_batch.schema import RECORD_FILE
from wbc_batch.sources.kinds import is_url

__all__ = ["NOT_RECORDED", "Provenance", "base_of", "read_provenance"]

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Provenance:
    """Where the numbers of a page come from.

    Attributes
    ----------
    model, started, rate : str
        Name of the model; when the run began; cells per second. Empty where unknown.
    facts : tuple of (str, str)
        All that the foot of the page lists; `NOT_RECORDED` where unknown.
    base : Path or None
        The folder that relative inputs start from; None for the current one.
    canonical : callable or None
        Makes canonical crops as the model did; None where the run does not say how.
    confusion : Confusion or None
        How the model confuses the classes; None where the run does not say.
    saved_crops : bool
        Whether crops were cut from an open image and saved: boxes are then not of the images that the
        cells name.
    """

    model: str
    started: str
    rate: str
    facts: tuple[tuple[str, str], ...]
    base: Path | None
    canonical: Canonical | None
    confusion: Confusion | None
    saved_crops: bool


def read_provenance(run_dir: Path) -> Provenance:
    """Read ``run.json`` of a run directory; what is missing or damaged is shown as not recorded."""
    run = peek_json(run_dir / RECORD_FILE)
    model = _part(run, "model")
    facts = (
        ("Model", model.get("name")),
        ("SHA-256 of the weights", model.get("sha256")),
        ("Command", run.get("command")),
        ("Input digest", run.get("input_digest")),
        ("Started", _time(run.get("started"))),
        ("Finished", _time(run.get("finished"))),
        ("Seconds of classification", run.get("seconds")),
        ("Workers", run.get("workers")),
        ("Device", run.get("device")),
        ("Precision", run.get("precision")),
        ("Backend", run.get("backend")),
        ("Versions", run.get("versions")),
    )
    return Provenance(
        model=_text(model.get("name")),
        started=_time(run.get("started")),
        rate=_text(run.get("cells_per_second")),
        facts=tuple((fact, _text(value) or NOT_RECORDED) for fact, value in facts),
        base=base_of(run, run_dir),
        canonical=_canonical(_part(model, "preprocessing")),
        confusion=confusion_from_record(model.get("confusion")),
        saved_crops=run.get("saved_crops") is True,
    )


def base_of(run: Mapping[str, Any], run_dir: Path) -> Path | None:
    """Return the folder that relative inputs of a run start from; None where that is not recorded.

    Where that is gone, a project was perhaps moved as a whole: then it is the folder in which the inputs
    are, seen from the results as it was before, or else the current one.

    Parameters
    ----------
    run : mapping
        What ``run.json`` says.
    run_dir : Path
        The run directory: crops that were saved in it are in it wherever it was moved.
    """
    if run.get("saved_crops") is True:
        return resolved(run_dir)
    base = run.get("directory")
    if not isinstance(base, str):
        return None
    if is_folder(base):
        return Path(base)
    places = _perhaps_moved(run, base, run_dir)
    return next((place for place in places if _has_inputs(place, run)), Path(base))


def _perhaps_moved(run: Mapping[str, Any], base: str, run_dir: Path) -> Iterator[Path]:
    folder = run.get("folder")
    if isinstance(folder, str):
        with suppress(ValueError):  # on Windows no way leads from one drive to another
            yield resolved(run_dir / os.path.relpath(base, folder))
    yield Path.cwd()


def _has_inputs(place: Path, run: Mapping[str, Any]) -> bool:
    inputs = run.get("inputs")
    named = [item for item in inputs if isinstance(item, str)] if isinstance(inputs, list) else []
    # Absolute ones are everywhere, and say nothing.
    relative = [item for item in named if not (is_url(item) or Path(item).is_absolute())]
    return bool(relative) and all(exists(place / item) for item in relative)


def _part(whole: Any, key: str) -> Mapping[str, Any]:
    part = whole.get(key) if isinstance(whole, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _canonical(settings: Mapping[str, Any]) -> Canonical | None:
    from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop

    if not settings:
        return None
    try:
        preprocessing = Preprocessing(**settings)
    except TypeError:  # settings of another version
        return None
    return lambda image: canonical_crop(image, preprocessing).pixels


def _time(value: Any) -> str:
    """Turn an ISO 8601 time into one that reads well, to the second, in its own zone."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return _text(value)
    return time.strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list):
        return command_text(str(part) for part in value)
    if isinstance(value, float):
        return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return str(value)
