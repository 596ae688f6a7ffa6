"""A model as a directory: weights, what they need, and a card. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.description import checked
from wbc_batch.classifier.novelty import NoveltyModel
from wbc_batch.classifier.nucleus_size import SizeEvidence
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import ModelError, in_a_line, reason
from wbc_batch.files import write_together
from wbc_batch.paths import absence, exists, is_file, is_folder
from wbc_batch.records import parse_json
from wbc_batch.schema import CLASSES

if TYPE_CHECKING:
    import torch

    from wbc_batch.classifier.architecture import Network

__all__ = [
    "CARD_FILE",
    "FORMAT",
    "IMAGES_FILE",
    "QUANTISED_FILES",
    "WEIGHTS_FILE",
    "Bundle",
    "bundles_in",
    "find_bundle",
    "read_bundle",
    "write_bundle",
]

#: Version of the bundle layout; a reader refuses newer ones.
FORMAT = 2
WEIGHTS_FILE = "model.safetensors"
#: The quantised network as OpenVINO stores it: description and weights.
QUANTISED_FILES = ("int8.xml", "int8.bin")
METADATA_FILE = "model.json"
CARD_FILE = "README.md"
#: Hashes of the images that the weights come from, see `wbc_batch.training.lineage`.
IMAGES_FILE = "images.txt"
_NETWORK, _NOVELTY, _CONFORMAL = "network.", "novelty.", "conformal."


@dataclass(frozen=True)
class Bundle:
    """What ``model.json`` says.

    Attributes
    ----------
    name : str
    architecture : str
        A key of `wbc_batch.classifier.network.ARCHITECTURES`.
    arguments : dict
        Its keyword arguments.
    classes : tuple of str
    preprocessing : Preprocessing
    temperature : float
    novelty_scale : float or None
        Distance in feature space that is a novelty of 1; None where the model has no novelty score.
    rejection : Rejection
    training : dict
        Data, settings and split digest, as `wbc_batch.training` wrote them.
    metrics : dict
        Figures of the evaluation, by data set.
    licence : str
    sha256 : str
        Of the weights file.
    path : Path
        The directory it was read from.
    size_evidence : SizeEvidence or None
        What the size of the nucleus says; None where the model does not heed it.
    quantised : dict
        Of a model with an int8 network: SHA-256 of its files (`files`, by name), and how it was calibrated
        and compared, as `wbc_batch.exchange.quantise` wrote it. Else empty.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    novelty_scale: float | None
    rejection: Rejection
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = "BSD-3-Clause"
    sha256: str = ""
    path: Path = Path()
    size_evidence: SizeEvidence | None = None
    quantised: dict[str, Any] = field(default_factory=dict)

    def load(self) -> tuple[Network, NoveltyModel | None]:
        """Read the weights.

        Returns
        -------
        network : Network
            In evaluation mode, float32, on the CPU.
        novelty : NoveltyModel or None

        Raises
        ------
        ModelError
            If the file's SHA-256 is not the one in ``model.json``, or the weights do not fit the network.
        """
        from safetensors.torch import load

        from wbc_batch.classifier.network import build_network

        path = self.path / WEIGHTS_FILE
        tensors = load(self._verified())
        network = build_network(self.architecture, len(self.classes), self.arguments)
        weights = {
            k.removeprefix(_NETWORK): v for k, v in tensors.items() if k.startswith(_NETWORK)
        }
        try:
            network.load_state_dict(weights)
            novelty = self._novelty(tensors)
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"the weights in {path} do not fit the network {self.architecture!r} that model.json "
                f"describes: {in_a_line(error)}"
            ) from error
        return network.eval(), novelty

    def conformal_scores(self) -> tuple[NDArray[np.float32], ...]:
        """Read how badly the truth was missed on the validation cells, class by class.

        Returns
        -------
        tuple of ndarray of float32
            See `wbc_batch.classifier.conformal.conformal_scores`.

        Raises
        ------
        ModelError
            If the model has none, or its weights file is damaged.
        """
        from safetensors.numpy import load

        tensors = load(self._verified())
        try:
            return tuple(tensors[_CONFORMAL + name] for name in self.classes)
        except KeyError as error:
            raise ModelError(
                f"the model {self.name!r} cannot give prediction sets: its bundle holds no validation "
                "scores; leave --coverage out, or use a model trained by this version of wbc-batch"
            ) from error

    def read_quantised(self) -> tuple[bytes, bytes]:
        """Read the int8 network: its description and weights, as OpenVINO stores them.

        Raises
        ------
        ModelError
            If a file is missing, or its SHA-256 is not the one in ``model.json``.
        """
        hashes = self.quantised.get("files", {})
        description, weights = (
            _read_verified(self.path / name, hashes.get(name, "")) for name in QUANTISED_FILES
        )
        return description, weights

    def check_files(self) -> None:
        """Make sure that the files of the weights are those that ``model.json`` describes.

        Raises
        ------
        ModelError
            If one is missing, damaged or another one.
        """
        self._verified()
        if self.quantised:
            self.read_quantised()

    def _verified(self) -> bytes:
        """Content of the weights file, checked."""
        from safetensors import SafetensorError, deserialize

        path = self.path / WEIGHTS_FILE
        content = _read_verified(path, self.sha256)
        try:
            deserialize(content)
        except SafetensorError as error:
            raise ModelError(f"{path} is not a safetensors file: {error}") from error
        return content

    def _novelty(self, tensors: Mapping[str, torch.Tensor]) -> NoveltyModel | None:
        if self.novelty_scale is None:
            return None
        means, whitening = (
            tensors[f"{_NOVELTY}{name}"].float().numpy() for name in ("means", "whitening")
        )
        return NoveltyModel(means, whitening, self.novelty_scale)

    def describe(self, card: str) -> None:
        """Write ``model.json`` and the card into the bundle's directory, beside the weights.

        Raises
        ------
        RunError
            If they cannot be written.
        """
        write_together(self.path, self._description(card))

    def _description(self, card: str) -> dict[str, bytes]:
        described = asdict(self)
        del described["path"]
        text = json.dumps({"format": FORMAT} | described, indent=2, ensure_ascii=False)
        # model.json comes last: what it is missing from is no bundle.
        return {CARD_FILE: card.encode(), METADATA_FILE: f"{text}\n".encode()}


def bundles_in(folder: Path | None = None) -> list[Path]:
    """Directories of the bundled models, or of those right in a folder (itself included), sorted."""
    if folder is None:
        folder = Path(str(files("wbc_batch"))) / "models"
    found = [*folder.glob(METADATA_FILE), *folder.glob(f"*/{METADATA_FILE}")]
    return sorted(path.parent for path in found)


def find_bundle(model: str | Path) -> Path:
    """Directory of a model: the name of a bundled one, or a path.

    Raises
    ------
    ModelError
        If there is no such bundle.
    """
    bundled = {path.name: path for path in bundles_in()}
    if str(model) in bundled:
        return bundled[str(model)]
    path = Path(model)
    if is_file(path / METADATA_FILE):
        return path
    wrong = (
        f"the directory {path} is not a model bundle (it has no {METADATA_FILE})"
        if is_folder(path)
        else f"{path} is a file, but a model bundle is a directory with {METADATA_FILE} and {WEIGHTS_FILE}"
        if exists(path)
        else absence(path, f"there is no model {str(model)!r}")
    )
    raise ModelError(f"{wrong}; give the directory of a bundle, or one of: {', '.join(bundled)}")


def read_bundle(model: str | Path = "default") -> Bundle:
    """Read and check ``model.json``.

    Parameters
    ----------
    model : str or Path
        The name of a bundled model, or a bundle's directory.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If there is no such bundle or ``model.json`` cannot be used.
    """
    path = find_bundle(model)
    source = path / METADATA_FILE
    text = _read_bytes(source)
    try:
        content = parse_json(text)
        version = content.pop("format")
        bundle = None if version > FORMAT else Bundle(**checked(content), path=path)
        if bundle is not None:
            _check_quantised(bundle.quantised)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ModelError(f"{source} is not a usable model description: {why}") from error
    if bundle is None:
        raise ModelError(
            f"{source} has the bundle format {version}, but this version of wbc-batch reads formats up to "
            f"{FORMAT}; upgrade wbc-napari"
        )
    if bundle.classes != CLASSES:
        raise ModelError(
            f"{source} lists the classes {', '.join(bundle.classes)}, but wbc-batch needs "
            f"{', '.join(CLASSES)}, in this order"
        )
    return bundle


def write_bundle(
    path: Path,
    bundle: Bundle,
    weights: Mapping[str, torch.Tensor],
    novelty: NoveltyModel | None,
    card: str,
    *,
    conformal: Sequence[NDArray[np.float32]] = (),
    images: str = "",
    exact: bool = False,
) -> Bundle:
    """Write a bundle.

    Matrices and kernels are stored in half precision. Vectors are not: biases weigh little on disk, and the
    variances of batch normalisation can leave the range of half precision.

    Parameters
    ----------
    path : Path
        Directory; made if it is not there.
    bundle : Bundle
        Its `sha256` and `path` are filled in here.
    weights : mapping of str to Tensor
        State of the network.
    novelty : NoveltyModel or None
    card : str
        Markdown for ``README.md``.
    conformal : sequence of ndarray of float32
        Scores of the validation cells, class by class (`wbc_batch.classifier.conformal`); empty where
        the model has none.
    images : str
        For ``images.txt``, see `wbc_batch.training.lineage.images_used`; no such file if empty.
    exact : bool
        Store everything in float32.

    Returns
    -------
    Bundle
        As `read_bundle` returns it.

    Raises
    ------
    RunError
        If it cannot be written; nothing of it is left then.
    """
    import torch
    from safetensors.torch import save

    def stored(value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value.detach().cpu().contiguous()
        half = value.ndim > 1 and not exact
        return value.detach().cpu().to(torch.float16 if half else torch.float32).contiguous()

    tensors = {f"{_NETWORK}{name}": stored(value) for name, value in weights.items()}
    if novelty is not None:
        tensors[f"{_NOVELTY}means"] = torch.from_numpy(np.ascontiguousarray(novelty.means))
        tensors[f"{_NOVELTY}whitening"] = stored(torch.from_numpy(novelty.whitening))
    for label, scores in zip(bundle.classes, conformal, strict=False):
        tensors[_CONFORMAL + label] = torch.from_numpy(np.ascontiguousarray(scores))
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    scale = None if novelty is None else novelty.scale
    described = replace(bundle, novelty_scale=scale, sha256=digest, path=path, quantised={})
    listed = {IMAGES_FILE: images.encode()} if images else {}
    write_together(path, {WEIGHTS_FILE: content, **listed, **described._description(card)})
    return read_bundle(path)


def _check_quantised(quantised: dict[str, Any]) -> None:
    if quantised and {*quantised["files"]} != {*QUANTISED_FILES}:
        raise ValueError(f"its quantised network is not in {' and '.join(QUANTISED_FILES)}")


def _read_verified(path: Path, sha256: str) -> bytes:
    content = _read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ModelError(
            f"{path} is damaged or was replaced: its SHA-256 is {digest[:12]}…, but model.json "
            f"gives {sha256[:12]}…; get the bundle again"
        )
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
