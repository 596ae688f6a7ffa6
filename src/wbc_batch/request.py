"""What a run is asked for: looked up, and checked as far as that goes without work."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wbc_batch.classifier import Bundle, read_bundle
from wbc_batch.classifier.backend import choose_backend
from wbc_batch.classifier.conformal import conformal_thresholds
from wbc_batch.classifier.runtime import refuse_impossible, try_model
from wbc_batch.engine.crew import Crew, choose_crew
from wbc_batch.engine.plan import Job, Listing, model_digest, survey
from wbc_batch.engine.run_folder import BY_FOLDER, Record, Settings, versions
from wbc_batch.errors import InputError
from wbc_batch.paths import resolved
from wbc_batch.report import ReportOptions, confusion_of, read_options
from wbc_batch.report.groups import AS_LISTED
from wbc_batch.schema import DEFAULT_PROFILE, SHARDS
from wbc_batch.sources import AnyInput, Cell, describe, input_around, list_cells, spelled

__all__ = ["Request", "group_of", "make_request", "refuse_overlap"]

# So many parts of the input are shown to workers that we did not start, to see if they can read it.
_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for.

    Attributes
    ----------
    inputs : sequence of str, Path or PathList
    group_by : str or None
        As `wbc_batch.sources.list_cells` takes them.
    listing : Listing
        What the inputs hold.
    samples : tuple of Cell
        The first of each of some parts of the input, for workers elsewhere to try.
    bundle : Bundle
    model : str
        The name or the place that workers find it by.
    device, precision, backend : str
        As `wbc_batch.Classifier.load` takes them; the backend is chosen.
    thresholds : list of float or None
        Of the prediction sets, class by class.
    coverage : float or None
        Their promise.
    crew : Crew
    stall_timeout : float
        Seconds.
    report : ReportOptions
    """

    inputs: Sequence[AnyInput]
    group_by: str | None
    listing: Listing
    samples: tuple[Cell, ...]
    bundle: Bundle
    model: str
    device: str
    precision: str
    backend: str
    thresholds: list[float] | None
    coverage: float | None
    crew: Crew
    stall_timeout: float
    report: ReportOptions

    def settings(self) -> Settings:
        """Name what must stay the same for the run to be continued."""
        return Settings(
            version=versions()["wbc-napari"],
            model=f"{self.bundle.name} ({model_digest(self.bundle)})",
            inputs=", ".join(map(describe, self.inputs)),
            cells=f"{self.listing.cells} ({self.listing.digest})",
            device=self.device,
            precision=self.precision,
            backend=self.backend,
            groups=self.group_by or BY_FOLDER,
        )

    def job(self, run_dir: Path, threads: int, precision: str | None = None) -> Job:
        """Collect what all its shards have in common, on workers with some cores and a precision."""
        return Job(
            model=self.model,
            model_digest=model_digest(self.bundle),
            device=self.device,
            precision=precision or self.precision,
            backend=self.backend,
            threads=threads,
            base=str(Path.cwd()),
            shards=str((run_dir / SHARDS).absolute()),
            columns=self.listing.columns,
        )

    def description(self, command: str | None) -> Record:
        """Describe it as ``run.json`` does before there is a result; the command is None for a call."""
        confusion = confusion_of(self.bundle.metrics)
        sets = {"coverage": self.coverage, "thresholds": self.thresholds}
        return {
            "state": "running",
            "command": command,
            "directory": str(Path.cwd()),
            "inputs": [spelled(item) for item in self.inputs],
            "group_by": self.group_by,
            "input_digest": self.listing.digest,
            "cells": self.listing.cells,
            "model": {
                "name": self.bundle.name,
                "sha256": self.bundle.sha256,
                "preprocessing": asdict(self.bundle.preprocessing),
                "confusion": confusion and confusion.to_record(),
            },
            "settings": asdict(self.settings()),
            "report": self.report.to_record(),
            "versions": versions(),
            "scheduler": self.crew.scheduler,
            "workers_from": self.crew.place,
            **dict.fromkeys(("finished", "error")),
            "prediction_sets": None if self.thresholds is None else sets,
        }


def make_request(
    inputs: AnyInput | Sequence[AnyInput],
    *,
    model: str | Path = "default",
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    coverage: float | None = None,
    group_by: str | None = None,
    profile: str | Path = DEFAULT_PROFILE,
    wbc_counts: str | Path | None = None,
    workers: int | None = None,
    memory_limit: str | None = None,
    scheduler: str | None = None,
    scheduler_file: str | Path | None = None,
    cluster: str | Path | None = None,
    stall_timeout: float = 600.0,
) -> Request:
    """Look up what a run is asked for, and list its cells. Nothing is started or written.

    Parameters
    ----------
    inputs, model, device, precision, backend, coverage, group_by, profile, wbc_counts
    workers, memory_limit, scheduler, scheduler_file, cluster, stall_timeout
        See `wbc_batch.classify_paths`.

    Raises
    ------
    InputError
        If an input or option cannot be used.
    ModelError
        If the model cannot.
    """
    paths = [inputs] if isinstance(inputs, AnyInput) else list(inputs)
    report = read_options(profile, wbc_counts)
    _refuse_no_time(stall_timeout)
    crew = choose_crew(device, workers, memory_limit, scheduler, scheduler_file, cluster)
    bundle = read_bundle(model)
    # Of workers elsewhere only what holds on every machine is known now; they are asked when they are there.
    (try_model if crew.local else refuse_impossible)(bundle, device, precision, backend)
    thresholds = _set_thresholds(bundle, coverage)
    firsts: dict[str, Cell] = {}
    listing = survey(_noting_firsts(list_cells(paths, group_by), firsts))
    if report.wbc_counts:  # better now than after the work
        groups = dict.fromkeys(map(group_of, list_cells(paths, group_by)))
        report.refuse_strange_groups(list(groups))
    return Request(
        inputs=paths,
        group_by=group_by,
        listing=listing,
        samples=tuple(firsts.values()),
        bundle=bundle,
        # A bundled model is found by its name wherever the package is; any other by its place.
        model=str(resolved(bundle.path)) if bundle.path == Path(model) else str(model),
        device=device,
        precision=precision,
        backend=choose_backend(backend),
        thresholds=thresholds,
        coverage=coverage,
        crew=crew.for_cells(listing.cells),
        stall_timeout=stall_timeout,
        report=report,
    )


def group_of(cell: Cell) -> str:
    """Name the group of the report that a cell will be counted in."""
    return AS_LISTED.rule(cell.source, cell.member, cell.group)


def refuse_overlap(inputs: Sequence[AnyInput], run_dir: Path) -> None:
    """Refuse results that would be taken for cells.

    Raises
    ------
    InputError
    """
    if (path := input_around(run_dir, inputs)) is not None:
        raise InputError(
            f"the results folder {run_dir} lies inside the input {path}, where its files would be "
            "read as cells; choose a folder outside it"
        )


def _refuse_no_time(stall_timeout: float) -> None:
    """Refuse a time after which a run would be given up at once, or never.

    Raises
    ------
    InputError
    """
    if not 0.0 < stall_timeout < math.inf:
        raise InputError(
            f"a run cannot be given up after {stall_timeout:g} s without progress; allow a few "
            "minutes, such as --stall-timeout 600"
        )


def _set_thresholds(bundle: Bundle, coverage: float | None) -> list[float] | None:
    """Look up the thresholds of prediction sets; None if none were asked for.

    Raises
    ------
    InputError
        If no set can have such a coverage.
    ModelError
        If the model has no sets.
    """
    if coverage is None:
        return None
    if not 0.0 < coverage < 1.0:
        raise InputError(
            f"a coverage of {coverage:g} is not possible; give one between 0 and 1, such as 0.95"
        )
    return conformal_thresholds(bundle.conformal_scores(), coverage).tolist()


def _noting_firsts(cells: Iterator[Cell], firsts: dict[str, Cell]) -> Iterator[Cell]:
    """Pass cells on, and note the first of each of some parts of the input, by their names."""
    for cell in cells:
        if len(firsts) < _SAMPLES:
            firsts.setdefault(cell.store, cell)
        yield cell
