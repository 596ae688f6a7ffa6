"""What can be made of finished runs without classifying: their reports anew, and comparisons."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wbc_batch.engine.run_folder import Record, elsewhere, lacking, locked, read_record
from wbc_batch.errors import IncompleteRunError, InputError, RunError
from wbc_batch.files import refuse_misfits, removed, unwritable, writing
from wbc_batch.ledger import committed_shards
from wbc_batch.paths import absence, exists, is_file, resolved
from wbc_batch.report import read_options, write_reports
from wbc_batch.report.compare import (
    COMPARISON_FILES,
    ComparedRun,
    Comparison,
    compare_cells,
    write_comparison,
)
from wbc_batch.report.lists import first_few
from wbc_batch.report.options import recorded_options
from wbc_batch.report.ranges import NO_PROFILE
from wbc_batch.report.review import NO_REVIEW, Review, earlier_review
from wbc_batch.schema import CELLS_FILE, PAGE, RECORD_FILE, REPORT_FILES, REPORT_FOLDERS

__all__ = ["FinishedRun", "compare_runs", "open_run", "rebuild_report"]


@dataclass(frozen=True)
class FinishedRun:
    """A run whose cells are all classified.

    Attributes
    ----------
    path : Path
    record : dict
        Its ``run.json``.
    shard_files : list of Path
        In the order of its cells.
    """

    path: Path
    record: Record
    shard_files: list[Path]


def open_run(run_dir: Path) -> FinishedRun:
    """Open a run, and make sure that it is finished and whole.

    Parameters
    ----------
    run_dir : Path

    Returns
    -------
    FinishedRun

    Raises
    ------
    RunError
        If it is no run. With the exit code 4, if cells are missing; it says how many, and how to go on.
    """
    file = run_dir / RECORD_FILE
    if not is_file(file):
        why = absence(file, f"{run_dir} does not hold a run (there is no {RECORD_FILE})")
        raise RunError(f"{why}; give a folder that wbc-batch classify wrote")
    record = read_record(run_dir) or {}
    if missing := lacking(run_dir, record):
        raise IncompleteRunError(_what_is_missing(run_dir, record, missing))
    return FinishedRun(run_dir, record, committed_shards(run_dir))


def rebuild_report(
    run_dir: Path,
    output: Path | None = None,
    *,
    profile: str | Path | None = None,
    wbc_counts: str | Path | None = None,
    groups: str | None = None,
    review: str | Path | None = None,
    anndata: bool = False,
    force: bool = False,
) -> Path:
    """Write the reports of a finished run anew, without classifying.

    Parameters
    ----------
    run_dir : Path
    output : Path, optional
        Another folder for the reports. Default: the run's own.
    profile, wbc_counts : str or Path, optional
        Default: what the run was made with; its counts, where `groups` leads to the same groups.
    review : str or Path, optional
        Default: the review in the run's own ``cells.csv``, where there is one. ``none`` for none.
    groups, anndata
        See `wbc_batch.report.read_options`.
    force : bool
        Replace reports that are there.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunError
        If there is no such run, it is not finished, reports would be overwritten, or `output` holds
        another run.
    InputError
        If the options cannot be used, or do not fit the run.
    """
    options = read_options(profile or NO_PROFILE, wbc_counts, groups, review, anndata)
    run = open_run(run_dir)
    made_with = recorded_options(run.record.get("report"))
    if profile is None:
        options = replace(options, profile=made_with.profile)
    if wbc_counts is None:
        options = replace(
            options, wbc_counts=made_with.wbc_counts, counts_of_run=groups is not None
        )
    if review is None:
        options = replace(options, review=_own_review(run_dir))
    place = output or run_dir
    sets = run.record.get("prediction_sets") or {}
    # A run that only others may write to can be reported elsewhere.
    own = resolved(place) == resolved(run_dir)
    if not own and exists(place / RECORD_FILE):
        raise RunError(
            f"{place} holds another run, whose reports would be replaced; choose another folder "
            "with -o"
        )
    with (
        locked(run_dir) if own else nullcontext(),
        _results_folder(place, REPORT_FILES, REPORT_FOLDERS, force=force),
    ):
        write_reports(run_dir, run.shard_files, sets.get("thresholds"), options, place)
    return place / PAGE


def compare_runs(first: Path, second: Path, output: Path, force: bool = False) -> Comparison:
    """Compare two runs, or two models, on the same cells.

    Parameters
    ----------
    first, second : Path
        Run directories.
    output : Path
        Folder for ``compare.html``, ``agreement.csv`` and ``changed.csv``.
    force : bool
        Replace a comparison that is there.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If a run is missing or not finished, or a comparison would be overwritten.
    InputError
        If the runs have no cell in common.
    """
    runs = [open_run(path) for path in (first, second)]
    with _results_folder(output, COMPARISON_FILES, force=force):
        one, two = (
            ComparedRun.of(name, run.path, run.record, run.shard_files)
            for name, run in zip(_names(first, second), runs, strict=True)
        )
        comparison = compare_cells(one, two)
        write_comparison(output, comparison)
    return comparison


def _own_review(run_dir: Path) -> Review | None:
    """Read the review of the report that the run has: work of a person, which no shard holds."""
    try:
        return earlier_review(run_dir / CELLS_FILE)
    except InputError as error:
        raise InputError(f"{error}; or leave out that review with --review {NO_REVIEW}") from error


def _what_is_missing(run_dir: Path, record: Record, missing: int) -> str:
    missed = f"{missing:,} of {record['cells']:,} cells"
    if record.get("state") == "finished":
        trouble = f"{run_dir} is no longer complete: the shards of {missed} are missing or damaged"
    else:
        state = record.get("state", "not recorded")
        trouble = f"{run_dir} is not finished: {missed} are not classified yet (state: {state})"
    place = elsewhere(run_dir, record)
    if command := record.get("command"):
        return f"{trouble}; continue it with{place}: {command}"
    return f"{trouble}; make the same call{place} to continue it"


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Call two runs by their folders; where these are called alike, by the ways to them."""
    names = resolved(first).name, resolved(second).name
    return names if names[0] != names[1] else (str(first), str(second))


@contextmanager
def _results_folder(
    path: Path, files: tuple[str, ...], folders: tuple[str, ...] = (), *, force: bool
) -> Iterator[None]:
    """Make a folder for files and folders of these names; if nothing comes of it, both go again.

    Raises
    ------
    RunError
        If there can be no such folder, something is in the way in it, or it holds such files and `force` is
        not given.
    """
    new = not exists(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    refuse_misfits(path, files, folders)
    names = (*files, *folders)
    there = [name for name in names if exists(path / name)]
    if there and not force:
        raise RunError(
            f"{path} already holds {first_few(there, 3)}; choose another folder with -o, or add "
            "--force to replace them"
        )
    try:
        with unwritable(path):
            yield
    except BaseException:
        for name in set(names).difference(there):  # so that the same command can be repeated
            with suppress(OSError):
                removed(path / name)
        if new:
            with suppress(OSError):
                path.rmdir()
        raise
