"""What the weights of a model were trained on, also before the training that made it."""

from collections.abc import Iterator, Mapping
from typing import Any

from wbc_batch.classifier import Bundle

__all__ = ["AVERAGE_OF", "STARTED_FROM", "recorded", "trainings"]

#: What the record of a training calls those of the models that it averaged, or of the one it went on from.
AVERAGE_OF, STARTED_FROM = "average_of", "started_from"


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
