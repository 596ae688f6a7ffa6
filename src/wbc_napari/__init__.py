"""White blood cells in napari: the classifier of `wbc_batch` on the user's own layers.

Three layers of code. Plain data: `crops`, `tables`, `review`, `journal`. What reads or changes layers and
knows no window: `marks`, `layers`, `companions`, `appearance`, `session`, `runner`, `outcome`, `batch_run`,
`export`. Pages that only wire these to buttons: `station` and what it holds. Torch is imported when cells
are first classified, so that napari starts as fast as without this plugin.
"""
