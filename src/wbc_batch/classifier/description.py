"""The values of ``model.json``: each of its kind, and such that one can compute with it."""

import math
from typing import Any

from wbc_batch.classifier.nucleus_size import SizeEvidence
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import LARGEST, Preprocessing
from wbc_batch.schema import CLASSES

__all__ = ["checked"]

_TEXTS = ("name", "architecture", "licence", "sha256")
_TABLES = ("arguments", "training", "metrics", "quantised")


def checked(content: dict[str, Any]) -> dict[str, Any]:
    """Check what ``model.json`` says, and make of it what `wbc_batch.classifier.bundle.Bundle` takes.

    Raises
    ------
    KeyError, TypeError, AttributeError, ValueError, ModelError
        If something is missing, of another kind, or no value to compute with.
    """
    values = dict(content)
    values["preprocessing"] = _preprocessing(values["preprocessing"])
    values["rejection"] = _from_json(Rejection, values["rejection"])
    for name in ("min_confidence", "max_novelty"):
        limit = getattr(values["rejection"], name)
        _require(_is_number(limit) and not math.isnan(limit), name, limit, "a number")
    if values.get("size_evidence") is not None:
        values["size_evidence"] = _size_evidence(values["size_evidence"])
    values["classes"] = tuple(values["classes"])
    values["temperature"] = _positive("temperature", values["temperature"])
    if values["novelty_scale"] is not None:
        values["novelty_scale"] = _positive("novelty_scale", values["novelty_scale"])
    for name in _TEXTS:
        _require(isinstance(values.get(name, ""), str), name, values.get(name), "text")
    for name in _TABLES:
        _require(isinstance(values.get(name, {}), dict), name, values.get(name), "an object")
    return values


def _preprocessing(content: dict[str, Any]) -> Preprocessing:
    found: Preprocessing = _from_json(Preprocessing, content)
    whole = isinstance(found.size, int) and not isinstance(found.size, bool)
    fits = whole and 0 < found.size <= LARGEST
    _require(fits, "size", found.size, f"a number of pixels, at most {LARGEST}")
    for name in ("context", "max_gain", "margin"):
        _positive(name, getattr(found, name))
    share = _is_number(found.balance) and 0 <= found.balance <= 1
    _require(share, "balance", found.balance, "a number from 0 to 1")
    _each_positive("nucleus_density", found.nucleus_density, 3)
    return found


def _size_evidence(content: dict[str, Any]) -> SizeEvidence:
    found: SizeEvidence = _from_json(SizeEvidence, content)
    _each_positive("medians", found.medians, len(CLASSES))
    _positive("spread", found.spread)
    return found


def _from_json(kind: type, content: dict[str, Any]) -> Any:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})


def _each_positive(name: str, values: Any, count: int) -> None:
    several = isinstance(values, tuple) and len(values) == count
    _require(several, name, values, f"{count} numbers")
    for value in values:
        _positive(name, value)


def _positive(name: str, value: Any) -> float:
    _require(_is_number(value) and 0 < value < math.inf, name, value, "a number above 0")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(fits: bool, name: str, value: Any, wanted: str) -> None:
    if not fits:
        raise ValueError(f"its {name} is {repr(value)[:80]} instead of {wanted}")
