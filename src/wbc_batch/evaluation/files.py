"""What an evaluation leaves in its folder: figures, tables, pictures and a page."""

import csv
import io
import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from wbc_batch.errors import RunError
from wbc_batch.evaluation import pictures
from wbc_batch.evaluation.assessment import Assessment
from wbc_batch.evaluation.figures import Evaluation
from wbc_batch.evaluation.page import render_page
from wbc_batch.files import write_together, writing
from wbc_batch.pages.drawing import to_png
from wbc_batch.schema import CLASSES

__all__ = ["EVALUATION", "LEAVE_ONE_OUT", "file_names", "open_folder", "write_files"]

#: Names of the JSON file and the page, without suffix, and their texts.
EVALUATION, LEAVE_ONE_OUT = "evaluation", "leave-one-out"

_TEXTS = {
    EVALUATION: ("Evaluation", "How the model classifies labeled cells."),
    LEAVE_ONE_OUT: (
        "Leave one out",
        "The model is trained again without one data set at a time and tested on that one, which shows what "
        "to expect in a laboratory that it has not seen. Validation cells are a tenth of the training cells.",
    ),
}


def open_folder(output: Path, kind: str) -> None:
    """Make the folder; it may hold an earlier evaluation of the same kind, which stays until `write_files`.

    Raises
    ------
    RunError
        If it holds something else or cannot be made.
    """
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        there = [path.name for path in output.iterdir() if not path.name.startswith(".")]
    earlier = f"{kind}.json" in there
    if not earlier and not all(name.startswith("without-") for name in there):
        raise RunError(
            f"{output} is not empty and holds no earlier {kind.replace('-', ' ')}; choose a new folder"
        )


def write_files(output: Path, kind: str, assessment: Assessment) -> None:
    """Write figures, tables, pictures and the page; what is there of an earlier evaluation goes.

    Parameters
    ----------
    output : Path
        See `open_folder`. Gets ``<kind>.json`` and ``<kind>.html``, for each data set
        ``confusion-NAME.csv`` and ``.png``, and ``reliability.png`` and ``coverage.png``.
    kind : str
        `EVALUATION` or `LEAVE_ONE_OUT`.
    assessment : Assessment

    Raises
    ------
    RunError
        If they cannot be written.
    """
    contents = _contents(kind, assessment)  # all of them, before any older one is lost
    write_together(output, contents)
    for path in output.glob("confusion-*"):
        if path.name not in contents:
            path.unlink()


def _contents(kind: str, assessment: Assessment) -> dict[str, bytes]:
    """Content of each file, by its name."""
    data_sets = assessment.data_sets
    contents: dict[str, bytes] = {}
    for name, stem in _stems(data_sets).items():
        contents[f"{stem}.csv"] = _confusion_table(data_sets[name])
        contents[f"{stem}.png"] = to_png(partial(pictures.confusion, data_sets[name]))
    for draw in (pictures.reliability, pictures.coverage):
        contents[f"{draw.__name__}.png"] = to_png(partial(draw, data_sets))
    page = render_page(assessment, *_TEXTS[kind])
    contents[f"{kind}.html"] = page.encode("utf-8", "backslashreplace")
    contents[f"{kind}.json"] = (json.dumps(assessment.to_dict(), indent=2) + "\n").encode()
    return contents


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Give each data set a name that any file system takes, and tells from the others'."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for number, name in enumerate(names, 1):
        stem = re.sub(r"[^\w.-]+", "_", name)
        while stem.casefold() in taken:
            stem = f"{stem}-{number}"
        taken.add(stem.casefold())
        given[name] = stem
    return given


def _stems(names: Iterable[str]) -> dict[str, str]:
    return {name: f"confusion-{stem}" for name, stem in file_names(names).items()}


def _confusion_table(evaluation: Evaluation) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("true", *CLASSES))
    for label, row in zip(CLASSES, evaluation.confusion, strict=True):
        writer.writerow((label, *row))
    return text.getvalue().encode()
