"""A model's network in 8-bit integers: calibrated on some cells, admitted by others."""

import hashlib
import logging
import os
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier import Bundle, Classifier, Predictions, read_bundle
from wbc_batch.classifier.bundle import CARD_FILE, IMAGES_FILE, QUANTISED_FILES, WEIGHTS_FILE
from wbc_batch.datasets.labelled import (
    LabelledCells,
    read_datasets,
    refuse_shared_images,
    select,
)
from wbc_batch.datasets.naming import Datasets
from wbc_batch.errors import InputError, ModelError, refuse_missing
from wbc_batch.files import refuse_existing, scratch, write_together
from wbc_batch.paths import is_file
from wbc_batch.schema import CLASSES

if TYPE_CHECKING:
    import openvino

__all__ = ["LARGEST_LOSS", "LEAST_AGREEMENT", "Int8Comparison", "quantise"]

#: Points of accuracy that a quantised network may lose on the validation cells, and per cent of them that
#: must keep their label: the novelty score can be lost where the accuracy is kept.
LARGEST_LOSS, LEAST_AGREEMENT = 0.2, 97.0
# Calibration cells of each class and data set, so that no one of them alone decides; and how many of all
# set the ranges.
_OF_EACH_KIND, _FOR_RANGES = 60, 300
# Penalty of the map that corrects the traces, whose channels have unit variance.
_PENALTY = 10.0


@dataclass(frozen=True, slots=True)
class Int8Comparison:
    """A quantised network against its own model in fp32, on the same cells.

    Attributes
    ----------
    cells : int
    accuracy, accuracy_fp32 : float
        Of the best guess, per cent.
    same_label : float
        Cells that get the same label, unidentified included, per cent.
    confidence_moved : float
        Mean distance of the confidences.
    novelty_moved : float or None
        Mean distance of the novelties; None where the model has none.
    """

    cells: int
    accuracy: float
    accuracy_fp32: float
    same_label: float
    confidence_moved: float
    novelty_moved: float | None


def quantise(
    model: str | Path, calibration: Datasets, validation: Datasets, output: Path
) -> tuple[Bundle, Int8Comparison]:
    """Write a copy of a model that holds its network in int8, too.

    Parameters
    ----------
    model : str or Path
        The name of a bundled model, or a bundle's directory.
    calibration, validation : mapping of str to Path or ManifestPart
        Labelled cells by the name of their data set: those whose values set the ranges, such as
        training cells, and those that the accuracy is compared on.
    output : Path
        Directory of the new bundle; must not be there yet.

    Returns
    -------
    bundle : Bundle
        The new one.
    comparison : Int8Comparison

    Raises
    ------
    InputError
        If cells cannot be used or are used twice, or a package is missing.
    ModelError
        If the model cannot be used, or as quantised loses more than `LARGEST_LOSS` points or keeps
        less than `LEAST_AGREEMENT` per cent of the labels.
    RunError
        If `output` is there already or cannot be written.
    """
    refuse_missing("quantise", "openvino", "nncf")
    if not validation:
        raise InputError("no cells to compare the accuracy on; give some with --validation")
    refuse_existing(output)
    bundle = read_bundle(model)
    calibrating, held = (
        read_datasets(named, bundle.preprocessing) for named in (calibration, validation)
    )
    refuse_shared_images(calibrating, held)
    used = _some_of_each_kind(calibrating)
    with scratch() as place:
        made = _with_files(bundle, _quantised(bundle, used.crops), Path(place))
        comparison = _compare(made, held)
        _refuse_change(bundle.name, comparison)
        facts = {
            "made_by": f"nncf {version('nncf')}, openvino {version('openvino')}",
            "calibration_cells": used.counts(),
            "calibration_digest": used.digest,
            "validation_cells": held.counts(),
            "validation_digest": held.digest,
            "comparison": asdict(comparison),
        }
        described = replace(made, quantised=made.quantised | facts)
        described.describe(_card(bundle))
        _move(Path(place), output)
    return read_bundle(output), comparison


def _refuse_change(name: str, comparison: Int8Comparison) -> None:
    lost = comparison.accuracy_fp32 - comparison.accuracy
    if lost > LARGEST_LOSS:
        raise ModelError(
            f"{name} in int8 loses {lost:.2f} points of accuracy on the {comparison.cells} validation "
            f"cells ({comparison.accuracy_fp32:.2f} to {comparison.accuracy:.2f} %), more than "
            f"{LARGEST_LOSS:g}; nothing was written; calibrate on more or other cells"
        )
    if comparison.same_label < LEAST_AGREEMENT:
        raise ModelError(
            f"{name} in int8 keeps the labels of {comparison.same_label:.2f} % of the {comparison.cells} "
            f"validation cells, unidentified included, less than {LEAST_AGREEMENT:g} %; nothing was "
            "written; calibrate on more or other cells"
        )


def _card(bundle: Bundle) -> str:
    return (bundle.path / CARD_FILE).read_text(encoding="utf-8")


def _some_of_each_kind(cells: LabelledCells) -> LabelledCells:
    """Choose cells at random, as many of each class and data set, so that rare ones count."""
    rng = np.random.default_rng(0)
    names = np.array(cells.names)
    chosen: list[int] = []
    for name in dict.fromkeys(cells.names):
        for label in range(len(CLASSES)):
            of_kind = np.flatnonzero((names == name) & (cells.labels == label))
            chosen += sorted(rng.permutation(of_kind)[:_OF_EACH_KIND].tolist())
    return select(cells, chosen)


def _quantised(bundle: Bundle, crops: NDArray[np.uint8]) -> dict[str, bytes]:
    """Quantise a network: its files by their names."""
    for name in ("nncf", "torch.utils.cpp_extension"):  # the latter misses CUDA
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to the vendor, unasked
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    from wbc_batch.classifier.openvino_backend import OpenVinoBackend, translate

    size = bundle.preprocessing.size
    network, _ = bundle.load()
    body = translate(network, size)
    body.reshape([1, size, size, 3])
    some = crops[:: -(-len(crops) // _FOR_RANGES)]
    with redirect_stdout(sys.stderr):  # it shows its progress
        small = nncf.quantize(
            body,
            nncf.Dataset([crop[np.newaxis] for crop in some]),
            subset_size=len(some),
            target_device=nncf.TargetDevice.CPU,
            # CPUs without VNNI add products of 8 bits in 16, which overflow: weights get 7 bits.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
    files = _stored(small)
    if bundle.novelty_scale is not None:
        _, exact = OpenVinoBackend(bundle.load()[0], size, "fp32").run(crops)
        description, weights = files.values()
        _, rough = OpenVinoBackend(network, size, "int8", (description, weights)).run(crops)
        _correct_traces(small, rough, exact)
        files = _stored(small)
    return files


def _stored(network: "openvino.Model") -> dict[str, bytes]:
    import openvino

    with scratch() as place:
        openvino.save_model(network, Path(place) / QUANTISED_FILES[0])
        return {name: (Path(place) / name).read_bytes() for name in QUANTISED_FILES}


def _correct_traces(
    network: "openvino.Model", rough: NDArray[np.float32], exact: NDArray[np.float32]
) -> None:
    """Let a quantised network map its traces to what they were, by ridge regression; in place.

    Rounding moves them little, but in directions in which cells hardly differ: without this all cells
    are novel.
    """
    from openvino import opset13 as ops

    mean, unit = rough.mean(axis=0), rough.std(axis=0)
    unit = np.maximum(unit, 0.01 * unit.mean())  # channels that are the same everywhere
    scaled = (rough - mean) / unit
    shift = (exact - rough).mean(axis=0)
    gram = scaled.T @ scaled + _PENALTY * np.eye(len(unit))
    turn = np.linalg.solve(gram, scaled.T @ (exact - rough - shift)) / unit[:, np.newaxis]
    result = network.get_results()[1].input(0)
    traces = result.get_source_output()
    centred = ops.subtract(traces, ops.constant(mean.astype(np.float32)))
    moved = ops.matmul(centred, ops.constant(turn.astype(np.float32)), False, False)
    shifted = ops.add(moved, ops.constant(shift.astype(np.float32)))
    result.replace_source_output(ops.add(traces, shifted).output(0))


def _with_files(bundle: Bundle, files: dict[str, bytes], place: Path) -> Bundle:
    """Copy a bundle, with a quantised network in it."""
    for name in (WEIGHTS_FILE, CARD_FILE, IMAGES_FILE):
        if is_file(bundle.path / name):
            shutil.copyfile(bundle.path / name, place / name)
    for name, content in files.items():
        (place / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    made = replace(bundle, path=place, quantised={"files": hashes})
    made.describe(_card(bundle))
    return made


def _compare(bundle: Bundle, cells: LabelledCells) -> Int8Comparison:
    exact, small = (
        Classifier.load(bundle.path, "cpu", precision, "openvino").predict_prepared(
            cells.crops, cells.sizes
        )
        for precision in ("fp32", "int8")
    )
    scored = not np.isnan(exact.novelty).any()
    return Int8Comparison(
        len(cells),
        _accuracy(small, cells),
        _accuracy(exact, cells),
        round(100 * float(np.mean(exact.label == small.label)), 2),
        _mean_distance(exact.confidence, small.confidence),
        _mean_distance(exact.novelty, small.novelty) if scored else None,
    )


def _accuracy(predictions: Predictions, cells: LabelledCells) -> float:
    best = predictions.probabilities.argmax(axis=1)
    return round(100 * float(np.mean(best == cells.labels)), 2)


def _mean_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return round(float(np.abs(one - other).mean()), 4)


def _move(made: Path, output: Path) -> None:
    # The description comes last: a bundle without it is none.
    files = sorted(made.iterdir(), key=lambda path: path.suffix == ".json")
    write_together(output, {path.name: path.read_bytes() for path in files})
