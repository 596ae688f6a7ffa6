"""What goes wrong on a worker is known where the run is."""

import pickle

import pytest
from distributed.core import clean_exception, error_message
from distributed.protocol import deserialize, serialize

from wbc_batch import errors
from wbc_batch.errors import WbcError


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, WbcError)
    ],
)
def test_an_error_comes_back_from_a_worker_as_what_it_was(kind: type[WbcError]) -> None:
    try:
        raise kind("slide-1.zip: it is gone")
    except WbcError as error:
        sent = error_message(error)
    for part in ("exception", "traceback"):
        sent[part] = deserialize(*serialize(sent[part].data))
    _, error, _ = clean_exception(**sent)
    assert type(error) is kind
    assert str(error) == "slide-1.zip: it is gone"
    assert pickle.loads(pickle.dumps(error)).exit_code == kind.exit_code
