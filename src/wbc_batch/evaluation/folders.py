"""Evaluate a model on named data sets: what the command line calls."""

from dataclasses import replace
from pathlib import Path

from wbc_batch.classifier import Classifier
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.drawn import drawn_for_evaluation, refuse_drawn_name
from wbc_batch.datasets.labelled import LabelledCells, read_dataset, tell_copies
from wbc_batch.datasets.manifest import ManifestPart
from wbc_batch.datasets.naming import Datasets
from wbc_batch.errors import InputError
from wbc_batch.evaluation.assessment import Assessment, facts_of, role
from wbc_batch.evaluation.card import write_card
from wbc_batch.evaluation.figures import judge
from wbc_batch.evaluation.files import EVALUATION, open_folder, write_files
from wbc_batch.evaluation.unknown import judge_unknown, read_unknown
from wbc_batch.schema import DRAWN

__all__ = ["evaluate_folders"]


def evaluate_folders(
    model: str | Path,
    datasets: Datasets,
    drawn: int = 0,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    output: Path | None = None,
    card: bool = False,
    unknown: Datasets | None = None,
    command: str = "",
) -> Assessment:
    """Evaluate a model on folders of labelled cells and prepared data sets.

    Parameters
    ----------
    model : str or Path
    datasets : mapping of str to Path or ManifestPart
        Cells of the five classes, by the name of their data set.
    drawn : int
        Synthetic cells to evaluate on as well.
    device, precision, backend : str
        See `wbc_batch.Classifier.load`.
    output : Path, optional
        New folder, or that of an earlier evaluation, for what
        `wbc_batch.evaluation.files.write_files` writes.
    card : bool
        Write the figures into the bundle and its card, too.
    unknown : mapping of str to Path or ManifestPart, optional
        Cells of no class, see `wbc_batch.evaluation.unknown.read_unknown`.
    command : str
        For the record.

    Returns
    -------
    Assessment

    Raises
    ------
    InputError
        If no data set is named, or one cannot be used.
    RunError
        If `output` holds something else.
    """
    classifier = Classifier.load(model, device, precision, backend)
    unknown = unknown or {}
    _check_names(datasets, unknown, drawn)
    if output is not None:
        open_folder(output, EVALUATION)
    bundle = classifier.bundle
    known = {
        name: judge(classifier, _read(name, dataset, bundle.preprocessing))
        for name, dataset in datasets.items()
    }
    if drawn:
        cells = drawn_for_evaluation(drawn, bundle.preprocessing)
        known[DRAWN] = judge(classifier, cells)
    assessment = Assessment(
        bundle.name,
        facts_of(classifier, command),
        known,
        {name: role(bundle, name, judged.cells) for name, judged in known.items()},
        {
            name: judge_unknown(classifier, read_unknown(name, d, bundle.preprocessing), known)
            for name, d in unknown.items()
        },
    )
    if output is not None:
        write_files(output, EVALUATION, assessment)
    if card:
        replace(bundle, metrics=assessment.metrics()).describe(write_card(bundle, assessment))
    return assessment


def _read(name: str, dataset: Path | ManifestPart, preprocessing: Preprocessing) -> LabelledCells:
    cells = read_dataset(name, dataset, preprocessing)
    tell_copies(cells)
    return cells


def _check_names(datasets: Datasets, unknown: Datasets, drawn: int) -> None:
    refuse_drawn_name(datasets)
    if not (datasets or drawn):
        raise InputError("no data set was given; give a folder with one folder per class")
    twice = sorted({*datasets} & {*unknown})
    if twice:
        raise InputError(
            f"{twice[0]!r} is given both as known and as unknown cells; give it only once"
        )
