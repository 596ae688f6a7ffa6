"""White blood cells in napari: the classifier of `wbc_batch` on the user's own layers.

Three layers of code: `layers` and `canonical` turn layers into crops and results into layers and
know no window; `runner` classifies step by step; `widget` only wires them to buttons. Torch is
imported when cells are first classified, so that napari starts as fast as without this plugin.
"""
