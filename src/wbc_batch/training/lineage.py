"""What the weights of a model were trained on, also before the training that made it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wbc_batch.classifier import Bundle
from wbc_batch.classifier.bundle import IMAGES_FILE
from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.errors import ModelError, reason

__all__ = [
    "AVERAGE_OF",
    "STARTED_FROM",
    "images_used",
    "recorded",
    "trainings",
    "uses_of",
]


#: What the record of a training calls those of the models that it averaged, or of the one it went on from.
AVERAGE_OF, STARTED_FROM = "average_of", "started_from"
# What a training uses an image for, and the hexadecimal digits of its SHA-256 by which it is known.
_TRAINING, _VALIDATION = "training", "validation"
_DIGITS = 16


def recorded(bundle: Bundle) -> dict[str, Any]:
    """Describe a model for the record of one that is made from it."""
    return {"name": bundle.name, "sha256": bundle.sha256} | bundle.training


def trainings(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """List the record of a training and those of all that its weights come from.

    Parameters
    ----------
    record : mapping
        `Bundle.training`.

    Yields
    ------
    mapping
        Without ``cells`` where nobody knows what a model was trained on, such as an imported one.
    """
    yield record
    for member in record.get(AVERAGE_OF, []):
        yield from trainings(member)
    if record.get(STARTED_FROM):
        yield from trainings(record[STARTED_FROM])


def images_used(
    cells: LabelledCells, validation: LabelledCells, before: Iterable[Bundle] = ()
) -> str:
    """List the images that the weights of a model come from.

    Parameters
    ----------
    cells, validation : LabelledCells
        Of the training. Cells without a hash, such as drawn ones, are left out.
    before : iterable of Bundle
        The models that it started from, or averaged.

    Returns
    -------
    str
        For `IMAGES_FILE`: a line for each image, sorted, with the beginning of the SHA-256 of its file and
        its use. One that was both trained and validated on was trained on.
    """
    found: dict[str, str] = {}
    for digest in validation.hashes:
        found[digest[:_DIGITS]] = _VALIDATION
    for bundle in before:
        found |= {d: use for d, use in _read(bundle).items() if found.get(d) != _TRAINING}
    for digest in cells.hashes:
        found[digest[:_DIGITS]] = _TRAINING
    return "".join(f"{digest} {use}\n" for digest, use in sorted(found.items()) if digest)


def uses_of(bundle: Bundle, hashes: Iterable[str]) -> list[str | None]:
    """Say what the trainings of a model used images for.

    Parameters
    ----------
    bundle : Bundle
    hashes : iterable of str
        SHA-256 of the files, in hexadecimal.

    Returns
    -------
    list
        ``training`` or ``validation``; None for an image that they did not use, and for all where the bundle
        does not list them.

    Raises
    ------
    ModelError
        If the bundle's list is there but cannot be read.
    """
    used = _read(bundle)
    return [used.get(digest[:_DIGITS]) for digest in hashes]


def _read(bundle: Bundle) -> dict[str, str]:
    path = bundle.path / IMAGES_FILE
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} cannot be read ({reason(error)}); get the bundle again"
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        digest, _, use = line.partition(" ")
        if len(digest) != _DIGITS or use not in (_TRAINING, _VALIDATION):
            raise ModelError(f"{path} is damaged in line {number}; get the bundle again")
        found[digest] = use
    return found
