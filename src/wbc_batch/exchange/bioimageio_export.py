"""A model as a package of the BioImage Model Zoo (bioimage.io)."""

import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wbc_batch.classifier import Bundle
from wbc_batch.classifier.bundle import CARD_FILE
from wbc_batch.errors import ModelError, in_a_line, refuse_missing
from wbc_batch.exchange.onnx_export import INPUT, OUTPUT, OnnxModel, make_onnx
from wbc_batch.files import refuse_existing, scratch, writing

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import (
        InputTensorDescr,
        LicenseId,
        ModelDescr,
        OutputTensorDescr,
    )

__all__ = ["export_bioimageio"]

_SUMMARY = (
    "Distinguishes five classes of white blood cells in crops of one stained leukocyte each, as wbc-napari "
    "prepares them. For research use only."
)
_TAGS = [
    "classification",
    "white-blood-cells",
    "leukocytes",
    "hematology",
    "light-microscopy",
    "2d",
]
_CROPS, _PROBABILITIES = "test-crops.npy", "test-probabilities.npy"
_WEIGHTS, _DOCUMENTATION, _COVER = "model.onnx", "documentation.md", "cover.png"
# A cover is twice as wide as high, pixels.
_COVER_SIZE = (600, 300)


def export_bioimageio(model: str, output: Path) -> Bundle:
    """Write a model as a bioimage.io package, and run it with `bioimageio.core`.

    Parameters
    ----------
    model : str
        The name of a bundled model, or a bundle's directory.
    output : Path
        Directory; must not be there yet, or be empty.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If a package is missing.
    ModelError
        If the model cannot be used, or the package would not validate or give its probabilities.
    RunError
        If `output` is there already or cannot be written.
    """
    needed = ("onnx", "onnxscript", "onnxruntime", "bioimageio.spec", "bioimageio.core")
    refuse_missing("exchange", *needed)
    refuse_existing(output)
    made = make_onnx(model)
    _hush()
    from bioimageio.spec import save_bioimageio_package_as_folder

    with scratch() as folder:
        described = _describe(made, Path(folder))
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            save_bioimageio_package_as_folder(described, output_path=output)
    _test(output)
    return made.bundle


def _hush() -> None:
    """Keep what bioimageio logs off the terminal: its verdict is asked for."""
    from loguru import logger

    logger.disable("bioimageio")


def _test(package: Path) -> None:
    from bioimageio.core import test_model

    summary = test_model(package / "rdf.yaml", weight_format="onnx")
    if summary.status != "passed":
        wrong = [error.msg for detail in summary.details for error in detail.errors]
        raise ModelError(
            f"bioimageio.core does not accept the package in {package}: "
            f"{in_a_line(' '.join(wrong) or summary.status)}"
        )


def _describe(made: OnnxModel, folder: Path) -> "ModelDescr":
    from bioimageio.spec.model import v0_5 as spec

    bundle = made.bundle
    files = {
        _WEIGHTS: made.content,
        _CROPS: _npy(made.crops),
        _PROBABILITIES: _npy(made.probabilities),
        _DOCUMENTATION: _documentation(bundle).encode(),
        _COVER: _cover(made.crops),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    weights = spec.OnnxWeightsDescr(source=folder / _WEIGHTS, opset_version=made.opset)
    return spec.ModelDescr(
        name=re.sub(r"[^\w ()+-]", "-", f"White blood cells ({bundle.name})", flags=re.ASCII),
        description=_SUMMARY,
        authors=[spec.Author(name="The wbc-napari developers")],
        license=_licence(bundle.licence),
        documentation=spec.FileDescr(source=folder / _DOCUMENTATION),
        covers=[spec.FileDescr(source=folder / _COVER)],
        tags=_TAGS,
        inputs=[_input(bundle, folder)],
        outputs=[_output(bundle, folder)],
        weights=spec.WeightsDescr(onnx=weights),
    )


def _input(bundle: Bundle, folder: Path) -> "InputTensorDescr":
    from bioimageio.spec.model import v0_5 as spec

    size = bundle.preprocessing.size
    colours = [spec.Identifier(c) for c in ("red", "green", "blue")]
    return spec.InputTensorDescr(
        id=spec.TensorId(INPUT),
        description="Crops of one leukocyte each, prepared as described in the documentation",
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=colours),
            spec.SpaceInputAxis(id=spec.AxisId("y"), size=size),
            spec.SpaceInputAxis(id=spec.AxisId("x"), size=size),
        ],
        data=spec.IntervalOrRatioDataDescr(type="uint8", range=(0, 255)),
        test_tensor=spec.FileDescr(source=folder / _CROPS),
    )


def _output(bundle: Bundle, folder: Path) -> "OutputTensorDescr":
    from bioimageio.spec.model import v0_5 as spec

    classes = [spec.Identifier(c) for c in bundle.classes]
    return spec.OutputTensorDescr(
        id=spec.TensorId(OUTPUT),
        description="Calibrated probabilities of the classes",
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=classes)],
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0, 1)),
        test_tensor=spec.FileDescr(source=folder / _PROBABILITIES),
    )


def _documentation(bundle: Bundle) -> str:
    preparation = (
        "The image of one leukocyte, resized to a square"
        if bundle.preprocessing.view == "image"
        else "The canonical crop of an image of one leukocyte"
    )
    return (
        f"{(bundle.path / CARD_FILE).read_text(encoding='utf-8')}\n"
        "## Input and output\n\n"
        f"`{INPUT}`: {preparation}, as `wbc_batch.Classifier.prepare` makes it, uint8, red, green, blue. "
        "The parameters of this preparation:\n\n"
        f"```json\n{json.dumps(asdict(bundle.preprocessing), indent=2)}\n```\n\n"
        f"`{OUTPUT}`: {', '.join(bundle.classes)}. Calibrated. The rule that leaves a cell unidentified and "
        "the evidence from the size of its nucleus are applied by wbc-napari only.\n\n"
        "## Validation\n\n"
        "On labeled cells: `wbc-batch evaluate`. The package's test tensors are drawn cells.\n"
    )


def _licence(licence: str) -> "LicenseId | None":
    from bioimageio.spec.model.v0_5 import LicenseId

    try:
        return LicenseId(licence.split(",")[0])
    except ValueError:  # bioimage.io knows SPDX identifiers only
        return None


def _npy(array: NDArray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def _cover(crops: NDArray[np.uint8]) -> bytes:
    """Draw the first two test cells side by side, as PNG."""
    pair = np.concatenate([crop.transpose(1, 2, 0) for crop in crops[:2]], axis=1)
    sink = io.BytesIO()
    Image.fromarray(pair).resize(_COVER_SIZE, Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()
