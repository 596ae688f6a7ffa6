"""Where cells come from: what is listed, in which order, and how its pixels are read.

Listing decodes nothing. Reading turns one listed cell into pixels or says why it cannot.
"""

from wbc_batch.sources.cells import Cell, list_cells
from wbc_batch.sources.images import decode, read_file, read_image

__all__ = ["Cell", "decode", "list_cells", "read_file", "read_image"]
