"""Where cells come from: what is listed, in which order, and how its pixels are read.

Listing decodes nothing. Reading turns one listed cell into pixels or says why it cannot. There is a module
for each kind of source (`folders`, `archives`, `stacks`, `arrays`, `tables`, `stdin`), behind two doors,
`listing` and `reading`; `pack` writes a zarr store that `arrays` reads.
"""

from wbc_batch.sources.arrays import refuse_silent
from wbc_batch.sources.cells import Box, Cell, Place, cell_of
from wbc_batch.sources.fetching import read_file
from wbc_batch.sources.images import decode, decode_crop
from wbc_batch.sources.inputs import AnyInput, describe, input_around, spelled
from wbc_batch.sources.kinds import is_url
from wbc_batch.sources.listing import list_cells
from wbc_batch.sources.reading import (
    CellReader,
    Read,
    attempt_read,
    calm_decoders,
    prepared_crops,
    prepared_readers,
    read_image,
    readers,
)
from wbc_batch.sources.stdin import PathList, stdin_kept

__all__ = [
    "AnyInput",
    "Box",
    "Cell",
    "CellReader",
    "PathList",
    "Place",
    "Read",
    "attempt_read",
    "calm_decoders",
    "cell_of",
    "decode",
    "decode_crop",
    "describe",
    "input_around",
    "is_url",
    "list_cells",
    "prepared_crops",
    "prepared_readers",
    "read_file",
    "read_image",
    "readers",
    "refuse_silent",
    "spelled",
    "stdin_kept",
]
