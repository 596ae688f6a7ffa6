"""A model as one ONNX file: canonical crops in, calibrated probabilities out."""

import json
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wbc_batch.classifier import Bundle, Classifier
from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.torch_backend import fold_normalisation
from wbc_batch.errors import ModelError, refuse_missing
from wbc_batch.exchange.verify import drawn_crops
from wbc_batch.files import refuse_existing, scratch, write_file, writing

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "export_onnx", "make_onnx"]

#: Names of the model's input and output.
INPUT, OUTPUT = "crops", "probabilities"
# Cells that the exported model is tried on, and how far its probabilities may lie from ours.
_TRIED, _TOLERANCE = 3, 1e-4


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model, and cells that it was tried on.

    Attributes
    ----------
    bundle : Bundle
        What it was made of.
    content : bytes
        Of the file.
    opset : int
        Version of the ONNX operators.
    crops : ndarray of uint8, shape (N, 3, S, S)
        Drawn cells, as the model takes them.
    probabilities : ndarray of float32, shape (N, 5)
        What it says of them.
    """

    bundle: Bundle
    content: bytes
    opset: int
    crops: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def export_onnx(model: str, output: Path) -> Bundle:
    """Write a model as an ONNX file.

    Parameters
    ----------
    model : str
        The name of a bundled model, or a bundle's directory.
    output : Path
        The file; must not be there yet.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If a package is missing.
    ModelError
        If the model cannot be used, or the ONNX file would not give its probabilities.
    RunError
        If `output` is there already or cannot be written.
    """
    refuse_missing("exchange", "onnx", "onnxscript", "onnxruntime")
    refuse_existing(output)
    made = make_onnx(model)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, made.content)
    return made.bundle


def make_onnx(model: str) -> OnnxModel:
    """Translate a model and make sure that it gives the same probabilities.

    The file takes ``crops`` (uint8, (N, 3, S, S), any N), canonical crops as `Classifier.prepare` makes them,
    and gives ``probabilities`` (float32, (N, 5)), calibrated by the model's temperature. What a bundle says
    besides stands in the file's metadata.

    Parameters
    ----------
    model : str
        The name of a bundled model, or a bundle's directory.

    Raises
    ------
    ModelError
        If the model cannot be used, or the ONNX file would not give its probabilities.
    """
    import onnx

    classifier = Classifier.load(model, device="cpu", precision="fp32")
    crops = drawn_crops(classifier, _TRIED)
    expected = classifier.predict_prepared(crops).probabilities
    planes = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    network, _ = classifier.bundle.load()
    fold_normalisation(network)
    translated = onnx.load_from_string(_translate(network, classifier.bundle.temperature, planes))
    onnx.helper.set_model_props(translated, _metadata(classifier.bundle))
    content = translated.SerializeToString()
    given = _run(content, planes)
    if not np.abs(given - expected).max() <= _TOLERANCE:
        raise ModelError(
            f"the network of {classifier.bundle.path} cannot be exported: its probabilities in ONNX differ "
            f"by up to {np.abs(given - expected).max():.2g}"
        )
    opset = next(o.version for o in translated.opset_import if o.domain in ("", "ai.onnx"))
    return OnnxModel(classifier.bundle, content, opset, planes, given)


class _Probabilities(nn.Module):
    """Pixels as they lie in memory to calibrated probabilities."""

    def __init__(self, network: Network, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, crops: Tensor) -> Tensor:
        logits = self.network(crops.float() / 255.0)
        return torch.softmax(logits / self.temperature, dim=1)


def _translate(network: Network, temperature: float, crops: NDArray[np.uint8]) -> bytes:
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own insides
        path = Path(folder) / "model.onnx"
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                _Probabilities(network, temperature).eval(),
                (torch.from_numpy(crops),),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("cells")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
        return path.read_bytes()


def _metadata(bundle: Bundle) -> dict[str, str]:
    facts: dict[str, Any] = {
        "name": bundle.name,
        "classes": bundle.classes,
        "preprocessing": asdict(bundle.preprocessing),
        "temperature": bundle.temperature,
        "licence": bundle.licence,
        "weights_sha256": bundle.sha256,
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def _run(content: bytes, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: crops})[0]
