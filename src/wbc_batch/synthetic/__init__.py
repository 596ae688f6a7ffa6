"""Synthetic cells: drawn, never photographed, and always called so.

Stained leukocytes of the five classes among red cells, deterministic by seed. They feed the demo,
the tests and the benchmarks; they say nothing about how well a model reads real smears. Those of
`elsewhere` are for training.

A drawing is made of dye amounts per pixel (`shapes`, `leukocytes`, `smear`), turned into a picture
by a stain and a camera (`stain`). Lengths are in micrometres (um) until the last step.
"""

from wbc_batch.synthetic.elsewhere import draw_cells_elsewhere
from wbc_batch.synthetic.slides import write_slides
from wbc_batch.synthetic.smear import draw_cell, draw_cells, draw_field

__all__ = ["draw_cell", "draw_cells", "draw_cells_elsewhere", "draw_field", "write_slides"]
